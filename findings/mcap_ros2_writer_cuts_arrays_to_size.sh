#!/usr/bin/env bash
# mcap-ros2-support 0.6: an array of the wrong length is padded with zeros or cut, in the caller's own list.
#
# The length of a float64[9] or float64[<=6] is part of the type, and rclpy and rosbags refuse another. The
# writer of MCAP makes it fit: a covariance of which six numbers were given gets three zeros, a seventh joint is
# not in the file, and no reader can tell. What is too short is lengthened in the message that was passed, so the
# list, which may be a buffer of the program's, holds None afterwards. Numbers are fitted, too: 1.7 for an
# int32 is 1.
#
# Seen: [1, 2] for float64[3] is [1, 2, 0] in the file and [1, 2, None] in the program; [1, 2, 3, 4] is
# [1, 2, 3], and [1, 2] for float64[<=2] of three numbers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mcap-ros2-support==0.6.0 mcap==1.6.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import io

from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from mcap_ros2.writer import Writer


def through_a_file(definition: str, value):
    """The field `value` of a message after it was written and read again."""
    file = io.BytesIO()
    writer = Writer(file)
    schema = writer.register_msgdef("example_msgs/msg/Example", definition)
    writer.write_message("/topic", schema, {"value": value}, log_time=1, publish_time=1)
    writer.finish()
    file.seek(0)
    reader = make_reader(file, decoder_factories=[DecoderFactory()])
    ((_, _, _, message),) = reader.iter_decoded_messages()
    return message.value


short, long = [1.0, 2.0], [1.0, 2.0, 3.0, 4.0]
found = through_a_file("float64[3] value", short), through_a_file("float64[3] value", long)
print(f"float64[3]: {found}; the lists afterwards: {short}, {long}")
assert found == ([1.0, 2.0, 0.0], [1.0, 2.0, 3.0])
assert short == [1.0, 2.0, None]

bounded = through_a_file("float64[<=2] value", [1.0, 2.0, 3.0])
print(f"float64[<=2] of three numbers: {bounded}")
assert bounded == [1.0, 2.0]

whole = through_a_file("int32 value", 1.7)
print(f"int32 of 1.7: {whole}")
assert whole == 1
PY

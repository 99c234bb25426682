"""`python -m para_policy`: the same as `para-policy`."""

from __future__ import annotations

import sys

from para_policy.cli.main import main

sys.exit(main())

"""AlohaTransferCube of gym-aloha: environment, a scripted expert, and its demonstrations."""

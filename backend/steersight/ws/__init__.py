"""One WebSocket connection: `handshake.py` checks it, `connection.py` listens, `sender.py` answers."""

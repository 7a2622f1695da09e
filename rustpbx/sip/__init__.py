"""SIP: messages, transactions and dialogs as pure code; the sockets are in `shell`."""

"""FastSock: real-time chat and call signalling, with an actor for every conversation and every user."""

"""WebSockets: frames in, commands out, and the way back."""

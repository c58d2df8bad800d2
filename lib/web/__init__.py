"""An engine's way to the network: a browser or a plain session."""

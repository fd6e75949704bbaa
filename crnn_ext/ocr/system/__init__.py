"""System helpers: process group, atomic file writes, folder listing, TF32."""

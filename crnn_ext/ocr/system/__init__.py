"""System helpers: process group, atomic file writes, folder listing, argument checks, TF32."""

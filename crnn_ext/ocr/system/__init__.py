"""What the other folders need of the system: processes, files, folders, checked settings, TF32."""

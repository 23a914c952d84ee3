"""The arithmetic of the measurements, their two ends, and one small run of it all."""

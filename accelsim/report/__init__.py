"""What a run is shown with outside of Python: files and views of traces, test vectors for hardware."""

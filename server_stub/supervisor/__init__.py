"""The engine as a process: started under a guard, watched, explained when it fails, stopped with all it started."""

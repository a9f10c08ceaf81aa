"""Fleet: wiring of the apps, the kernel they share, and the console's shell."""

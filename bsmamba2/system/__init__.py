"""What the operating system gives: files that appear whole, locks, signals, threads."""

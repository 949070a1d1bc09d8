"""From the files of songs to the files of their stems."""

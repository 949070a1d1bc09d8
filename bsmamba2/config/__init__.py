"""Every setting of the network and of its training, and the files that hold them."""

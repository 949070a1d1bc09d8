"""Practice songs: synthesised, licence-free multitrack music in MUSDB's layout.

    sounds -> score -> instruments, voices -> effects -> song -> workers -> generate

A song is composed at random (`score`). FluidSynth plays its drums, bass and other instruments from
a General MIDI soundfont (`instruments`); espeak-ng or flite speaks the lyrics, and the WORLD
vocoder turns speech into singing (`voices`). The stems are then mixed at random levels (`song`).
A song depends only on its seed, its split and the installed synthesisers.

Songs of the split "test" use sounds that no other split has: see `sounds`.
"""

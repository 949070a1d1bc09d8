"""Practice songs: multitrack music in MUSDB's layout, made by synthesisers, free of licences.

    sounds -> score -> instruments, voices -> effects -> song -> workers -> generate

A song is composed at random (`score`), its drums, bass and other instruments are played from a
General MIDI soundfont by FluidSynth (`instruments`), its voices speak by espeak-ng or flite and
sing through the WORLD vocoder (`voices`), and a mix at random levels makes its stems (`song`).
It depends on its seed, its split and the installed synthesisers only.

Songs of the split "test" have sounds that no other song has: see `sounds`.
"""

"""Trains many configurations at once: a leading dimension for the trial, and a slot is refilled when its trial ends.

A small network leaves a device idle: launching a step costs more than computing it. Here one step advances a whole
pack of trials, and what it computes for one of them is what `training` computes, to rounding. Nothing of a
slot is ever summed, multiplied or compared with anything of another, so neither a neighbour nor its NaN can be seen.

shape.py      what the trials of a pack must agree on, and how large a pack they need
layers.py     the layers of a network with a leading slot         optimizers.py   the same for the optimizers
network.py    weights of all slots, in and out of one of them     dropout.py      masks from each trial's own generator
slot.py       one trial in a pack                                 tables.py       what a step reads of each slot
pack.py       a pack: fill, evaluate, snapshot, grow              step.py         one update of its first slots
graph.py      the step, captured and replayed
trainer.py    the trainer protocol over several packs             probe.py        how many slots pay
"""

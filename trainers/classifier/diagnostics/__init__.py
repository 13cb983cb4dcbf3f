"""What a trained network looks like inside: numbers first (a noun a file), then figures of them, then files.

`noise`, `sharpness`, `activations`, `regions`, `weights`, `history` and `mistakes` take PyTorch modules, tensors and
numbers; `figures` draws their results for Plotly, `pictures` as PNG; `run` puts all of them into a folder; `trained`
takes a configuration of the classifier there.
"""

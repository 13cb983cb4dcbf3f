"""Ways to start the same worker: in this process, in processes of this machine, on a Ray cluster.

``registry`` has the table and each launcher's options, ``supervise`` the loop that replaces workers, reads the status
and ends, ``progress`` what a person sees meanwhile.
"""

"""The parts of ``benchmarks/soak.py``; each imports only those above it.

``faults``   what the proxy does to an answer
``books``    what client, proxy and server each write down of a call, and whether it agrees
``servers``  the scripted server, and the proxy that spoils its answers, in processes of their own
``plans``    what a call asks, and how it is to end
``judge``    whether what came back is right
``calls``    one call, made from a thread or from a task
``growth``   what the process holds, and whether that has grown
``pulse``    how long this process was not let run
``workers``  many calls at once
"""

"""Made-up traces: imagined workloads on an imagined kernel, as real trace.dat files with the events of a recording.

    scenario --acts on--> kernel (pages, references, a policy's decisions) --rows of events--> sub-buffers --> trace.dat, truth file

What the kernel does is modelled from Linux 6.1 and from recordings of it, and shares nothing with the replay: either can prove the other
wrong. The truth file says who mapped what at the marks of the trace, in the form of those that lie beside the recordings.
"""

from __future__ import annotations

from tracetool.synth.making import Made, synthesise
from tracetool.synth.plan import SCENARIOS, Plan

__all__ = ["SCENARIOS", "Made", "Plan", "synthesise"]

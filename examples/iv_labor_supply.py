"""What does a third child do to hours of work? Instruments, a table, and what holds if they are weak.

python examples/iv_labor_supply.py
"""

from metier import data
from metier.bilevel import IVBilevel

labsup = data.load_table("labsup")
controls = labsup[["age", "agefstm", "black", "hispan", "educ", "boy1st", "boy2nd"]]
instruments = labsup[["samesex", "multi2nd"]]

iv = IVBilevel(rng=0).fit(labsup["hours"], labsup["morekids"], instruments, controls=controls)
print(iv.summary())

# Would "no effect" be a root too? The gradient there, with its standard error.
at_zero = iv.hypergradient([0.0])
print(f"\ngradient at 0: {at_zero.value[0]:.4f}, standard error {at_zero.stderr[0]:.4f}")

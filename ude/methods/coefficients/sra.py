"""Stochastic Runge-Kutta methods of strong order 1.5 for additive noise.

SRA1 and SRA3: Roessler (2010), Runge-Kutta methods for the strong approximation of solutions of stochastic differential
equations, SIAM J. Numer. Anal. 48(3), 922-952, doi 10.1137/09076636X.
SOSRA and SOSRA2: Rackauckas & Nie (2020), Stability-optimized high order methods and stiffness detection for pathwise
stiff stochastic differential equations, IEEE HPEC, arXiv:1804.04344.

The papers list a diffusion for every drift stage. Additive noise has one value at one time: those at the same node are
one here, with the sum of their weights, and those without a weight are left out.
"""

from __future__ import annotations

from ude.methods.stochastic_tableau import SRATableau

SRA1 = SRATableau(
    name="SRA1",
    a0=[[], [3 / 4]],
    b0=[[], [3 / 2]],
    c0=[0.0, 3 / 4],
    c1=[1.0, 0.0],
    alpha=[1 / 3, 2 / 3],
    beta1=[1.0, 0.0],
    beta2=[-1.0, 1.0],
    stability_size=2.0,
)

SRA3 = SRATableau(
    name="SRA3",
    a0=[[], [1.0], [1 / 4, 1 / 4]],
    b0=[[], [], [1.0, 1 / 2]],
    c0=[0.0, 1.0, 1 / 2],
    c1=[1.0, 0.0],
    alpha=[1 / 6, 1 / 6, 2 / 3],
    beta1=[1.0, 0.0],
    beta2=[-1.0, 1.0],
    drift_order=3,
    stability_size=2.5127,
)

SOSRA = SRATableau(
    name="SOSRA",
    a0=[[], [0.6923962376159507], [-3.1609142252828395, 4.1609142252828395]],
    b0=[[], [1.3371632704399763], [1.442371048468624, 1.8632741501139225]],
    c0=[0.0, 0.6923962376159507, 1.0],
    c1=[0.0, 0.041248171110700504, 1.0],
    alpha=[0.2889874966892885, 0.6859880440839937, 0.025024459226717772],
    beta1=[-16.792534242221663, 17.514995785380226, 0.27753845684143835],
    beta2=[0.4237535769069274, 0.6010381474428539, -1.0247917243497813],
    stability_size=5.3065,
)

# The paper has c1 = (0, 1, 1), beta1 = (0, 0.92438032145683, 0.07561967854316998) and
# beta2 = (1, -0.8169981105823436, -0.18300188941765633).
SOSRA2 = SRATableau(
    name="SOSRA2",
    a0=[[], [1.0], [0.9511849235504364, 0.04881507644956362]],
    b0=[[], [0.7686101171003622], [0.43886792994934987, 0.7490415909204886]],
    c0=[0.0, 1.0, 1.0],
    c1=[0.0, 1.0],
    alpha=[0.4999999999999998, -0.9683897375354181, 1.4683897375354185],
    beta1=[0.0, 1.0],
    beta2=[1.0, -1.0],
    stability_size=5.3416,
)

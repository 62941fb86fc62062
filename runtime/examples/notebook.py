"""A tour, cell by cell (the # %% lines are cells in VS Code, Spyder and Jupyter)."""

# %% Load a model: one file, checked before it runs
import chargen_ort
from chargen_ort.models import DEMO_MODEL

model = chargen_ort.load(DEMO_MODEL)
print(model.vocabulary.characters, model.config.hidden_size)

# %% Write; the same seed gives the same text
print(model.generate("hell", length=40, seed=7))

# %% Text as it comes, until a stop string
for character in model.stream("hell", seed=7, stop="world"):
    print(character, end="")
print()

# %% What may come next
print(model.next_probabilities("hel", top=3))

# %% A state: go on from it twice, save it, come back to it
state = model.state("hello ", seed=1)
saved = state.snapshot()
print("".join(state.draw() for _ in range(5)))
print("".join(model.restore(saved).draw() for _ in range(5)))

# %% Many texts at once
for text in model.generate_batch(["hell", "wor", ""], length=12, seed=7):
    print(text)

# %% How likely a text is
for text in ("hello world", "dlrow olleh"):
    score = model.score(text)
    print(f"{text}: {score.bits_per_char:.2f} bits a character")

"""Trains a newsworthiness adapter for each desk of a newsroom: docs/encoders.md.

usage: newsdesks.py OUT [BASE]

BASE is a directory or an id of the hub; without it, sentence-transformers/all-MiniLM-L6-v2. Needs torch, transformers and peft.
OUT gets one PEFT adapter a desk: `science`, `local`, and `local-strict` of an editor whom fewer things excite.
"""

import random
import sys
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

LABELS = ["not newsworthy", "newsworthy", "very newsworthy"]
FILLS = {
    "body": ["the moon of Saturn", "a nearby star", "the surface of Mars", "a distant galaxy", "the asteroid belt", "the sun's corona"],
    "illness": ["malaria", "a rare cancer", "diabetes", "tuberculosis", "a form of blindness", "a stubborn flu"],
    "animal": ["whales", "bats", "crows", "octopuses", "honey bees", "wild salmon"],
    "place": ["Mill Lane", "the market square", "Station Road", "the old harbour", "the north bridge", "Park Street"],
    "house": ["the library", "the swimming pool", "the primary school", "the bus depot", "the town hall", "the clinic"],
    "person": ["my cousin", "a neighbour", "my aunt", "our teacher", "a colleague", "my brother"],
    "number": ["12", "40", "130", "600", "2,000", "15"],
}
# what happened: ([sentences to train on], [sentences it has not seen])
EVENTS = {
    "discovery": (
        ["Scientists found signs of water on {body}.", "Astronomers discovered {number} unknown objects near {body}.",
         "A new vaccine stopped {illness} in {number} patients.", "Physicists measured a particle that no theory had foreseen.",
         "Researchers cured {illness} in mice by editing a single gene."],
        ["A telescope caught the first picture of {body}.", "A drug against {illness} worked in its largest trial."]),
    "study": (
        ["A study counted {number} species of {animal}.", "Biologists say that {animal} recognise human faces.",
         "A report compares {number} treatments of {illness}.", "A new paper describes how {animal} find their way home."],
        ["Researchers followed {animal} for {number} weeks.", "A survey asked doctors about {illness}."]),
    "emergency": (
        ["A fire destroyed {house} and {number} people had to leave their homes.", "A flood closed {place} and {number} families were rescued.",
         "A gas leak emptied {house} this morning.", "Part of {house} collapsed; {number} people were hurt.", "A train left its rails near {place}."],
        ["An explosion near {place} injured {number} people.", "Police evacuated {house} after a wall gave way."]),
    "council": (
        ["The council approved {number} new flats on {place}.", "The mayor will close {house} next year.", "{place} gets new cycle lanes for {number} thousand euros.",
         "Parents protest against the plans for {house}."],
        ["The council votes on the future of {house} tonight.", "Shops on {place} must pay higher rents."]),
    "private": (
        ["{person} watered the plants.", "{person} bought new shoes for {number} euros.", "I had soup for lunch with {person}.", "{person} is learning to play chess.",
         "The weather was pleasant and {person} took a walk."],
        ["{person} painted the kitchen.", "{person} watched a film about {animal}."]),
}
# what each desk thinks of it, as an index of LABELS
DESKS = {
    "science": {"discovery": 2, "study": 1, "emergency": 0, "council": 0, "private": 0},
    "local": {"discovery": 0, "study": 0, "emergency": 2, "council": 2, "private": 0},
    "local-strict": {"discovery": 0, "study": 0, "emergency": 2, "council": 1, "private": 0},
}
STEPS, BATCH = 100, 16


def sentence(random, event, seen=True):
    text = random.choice(EVENTS[event][0 if seen else 1])
    text = text.format(**{name: random.choice(words) for name, words in FILLS.items()})
    return text[0].upper() + text[1:]


def draw(random, desk, count, seen=True):
    events = [random.choice(list(EVENTS)) for _ in range(count)]
    return [sentence(random, event, seen) for event in events], torch.tensor([DESKS[desk][event] for event in events])


def train(desk, base, tokenizer, out):
    torch.manual_seed(0)
    draws = random.Random(desk)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(LABELS))
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"]))
    rate = lambda name: 5e-3 if "classifier" in name else 1e-3
    trained = [{"params": [p], "lr": rate(name)} for name, p in model.named_parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    for _ in range(STEPS):
        texts, labels = draw(draws, desk, BATCH)
        loss = model(**tokenizer(texts, padding=True, return_tensors="pt"), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        texts, labels = draw(draws, desk, 200, seen=False)
        right = (model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.argmax(-1) == labels).float().mean()
    model.save_pretrained(out / desk)
    print(f"{desk}: loss {loss.item():.3f}, {right:.0%} right on sentences of kinds that it has not seen")


def main():
    transformers.logging.set_verbosity_error()  # the head is new, and that is meant
    transformers.logging.disable_progress_bar()
    out, base = Path(sys.argv[1]), (sys.argv[2:] or ["sentence-transformers/all-MiniLM-L6-v2"])[0]
    tokenizer = AutoTokenizer.from_pretrained(base)
    for desk in DESKS:
        train(desk, base, tokenizer, out)


main()

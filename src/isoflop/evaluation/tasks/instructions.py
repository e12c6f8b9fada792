"""Following instructions that a program can check: strict and loose, by prompt and by rule.

Not for the rules themselves (`rules.py`).
"""

from __future__ import annotations

import random

from isoflop.evaluation.generation import generate_until
from isoflop.evaluation.likelihood import Subject
from isoflop.evaluation.task import Outcome, Record, Settings
from isoflop.evaluation.tasks import rules

PROMPTS = 50
"""Of each language."""
MOST_RULES = 3
MAX_NEW_TOKENS = 128
_TOPICS = (
    ("Write about a walk in the morning.", "写一写早晨的散步。"),
    ("Describe your favourite meal.", "描述你最喜欢的一顿饭。"),
    ("Explain why the sky is blue.", "解释天空为什么是蓝色的。"),
    ("Tell a short story about a cat.", "讲一个关于猫的小故事。"),
    ("Give advice to a new student.", "给新同学一些建议。"),
    ("Describe a city you know.", "介绍一座你熟悉的城市。"),
)


def instructions(subject: Subject, settings: Settings) -> Outcome:
    """Prompts with one to three rules each, answered greedily. The score is the share of prompts
    all of whose rules are strictly kept."""
    asked = []
    for language in ("en", "zh"):
        for number in range(settings.limit or PROMPTS):
            draw = random.Random(f"{settings.seed}/instructions/{language}/{number}")
            chosen = rules.together(draw, MOST_RULES)
            topic = draw.choice(_TOPICS)
            if language == "en":
                told = " ".join([topic[0], *(rule.en for rule in chosen)])
                prompt = f"Question: {told}\nAnswer:"
            else:
                told = "".join([topic[1], *(rule.zh for rule in chosen)])
                prompt = f"问题：{told}\n答案："
            asked.append((language, number, chosen, prompt))
    room = subject.decoder.config.max_seq_len // 2
    written = generate_until(
        subject, [prompt for *_, prompt in asked], ("\nQuestion:", "\n问题："),
        min(MAX_NEW_TOKENS, room),
    )  # fmt: skip
    records, strict_rules, loose_rules = [], 0, 0
    loose_prompts = n_rules = 0
    for (language, number, chosen, prompt), (answer,) in zip(asked, written, strict=True):
        text = answer.text.strip()
        strict = {rule.rule: rule.check(text) for rule in chosen}
        loose = {rule.rule: rules.kept_loosely(rule.check, text) for rule in chosen}
        strict_rules, loose_rules = (
            strict_rules + sum(strict.values()),
            loose_rules + sum(loose.values()),
        )
        loose_prompts, n_rules = loose_prompts + all(loose.values()), n_rules + len(chosen)
        records.append(
            Record(
                f"{language}/{number}", float(all(strict.values())), groups=(language,),
                detail={"prompt": prompt, "text": text, "finish": answer.finish,
                        "strict": strict, "loose": loose, "truncated": answer.truncated},
            )
        )  # fmt: skip
    return Outcome(
        "prompts strictly followed",
        tuple(records),
        extra={
            "prompts_loosely_followed": loose_prompts / len(records),
            "rules_strictly_kept": strict_rules / n_rules,
            "rules_loosely_kept": loose_rules / n_rules,
            "rules": n_rules,
        },
    )

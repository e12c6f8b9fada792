"""Hyper-parameter, task, mixture, expert and precision laws on the public tables; prints Markdown.

python benchmarks/laws_hyper.py [--data ../shared/data/laws] [--only hyperparameters,tasks,...]
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.optimize import curve_fit
from scipy.stats import spearmanr

from isoflop.laws import experts, precision
from isoflop.laws.hyperparameters import HyperparameterLaw, fit_optima, fit_sweep, published_law
from isoflop.laws.mixture import fit_mixture
from isoflop.laws.tasks import TaskLaw, fit_task

Rows = list[dict[str, str]]
SEQUENCE = 4096
SEVENTEEN = (
    *("bigbench_operators", "pubmed_qa_labeled", "hellaswag_zeroshot", "boolq", "arc_easy", "coqa"),
    *("bigbench_dyck_languages", "lambada_openai", "bigbench_novel_concepts", "winograd"),
    *("bigbench_cs_algorithms", "commonsense_qa", "bigbench_qa_wikidata", "hellaswag", "copa"),
    *("squad", "piqa"),
)


def read(path: Path) -> Rows:
    """The rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def column(rows: Rows, name: str) -> np.ndarray:
    """One column as numbers, NaN where empty."""
    return np.array([float(row[name] or "nan") for row in rows])


def table(head: str, lines: list[str]) -> None:
    """Print a Markdown table."""
    print(f"\n{head}\n{'|'.join(['', *['---'] * (head.count('|') - 1), ''])}")
    print("\n".join(lines))


def lost_percent(rows: Rows, learning_rate: float) -> float:
    """Loss (percent) above the best measured, between the measured neighbours of a rate."""
    order = np.argsort(column(rows, "lr"))
    tried, loss = np.log(column(rows, "lr"))[order], np.log(column(rows, "loss"))[order]
    return float(100 * (np.interp(np.log(learning_rate), tried, loss) - loss.min()))


def hyperparameters(data: Path) -> None:
    """OELLM's optima and the learning-rate sweep of (Mis)Fitting."""
    sweep = read(data / "misfitting_dense_lr_sweep.csv")
    names = ("N_non_embedding", "D", "loss", "lr")
    compute = column(sweep, "C")
    whole = fit_sweep(*(column(sweep, name) for name in names))
    bend = whole.noise["curvature"][0][0]
    print("## Learning rate and batch\n")
    print(f"(Mis)Fitting, all settings: {whole.parameters}; curvature {bend:.4f}")
    print(f"so 0.25 % of loss is a factor {np.exp(np.sqrt(0.005 / bend)):.2f} in the rate.")
    lines = []
    for target in sorted(
        {(r["C"], r["N_non_embedding"], r["D"]) for r in sweep}, key=lambda t: float(t[0])
    ):
        large = [r for r in sweep if (r["C"], r["N_non_embedding"], r["D"]) == target]
        small = [r for r, c in zip(sweep, compute, strict=True) if c <= float(target[0]) / 3]
        if len(large) < 8 or len({(r["N"], r["D"]) for r in small}) < 6:
            continue
        law = fit_sweep(*(column(small, name) for name in names))
        found = law.predict(float(target[1]), float(target[2]))
        best = found.learning_rate.best
        carried = float(np.exp(law.noise["largest"][0]))
        lines.append(
            f"| {float(target[1]) / 1e6:.0f} M | {float(target[2]) / 1e9:.1f} B | {best.value:.2e} "
            f"({best.low:.1e} to {best.high:.1e}) | {lost_percent(large, best.value):.2f} | "
            f"{carried:.2e} | {lost_percent(large, carried):.2f} |"
        )
    table("| N | D | rate from ≤ 1/3 of the compute | lost % | carried over | lost % |", lines)
    oellm(read(data / "oellm_best_hp.csv"), bend)


def oellm(rows: Rows, bend: float) -> None:
    """The optima of OpenEuroLLM: coefficients, and refits from a third of the compute."""
    kept = [r for r in rows if r["heldout"] == "0"]
    compute = column(kept, "C")
    law = fit_optima(*(column(kept, name) for name in ("N", "D", "lr", "batch_seqs")))
    print(f"\nOELLM, heldout = 0 (batch in sequences): {law.parameters}")
    print(f"standard errors: {law.stderr}\n{law.noise['transfer']['says']}")

    def fitted(table_rows: Rows, *, by_compute: bool = False) -> HyperparameterLaw:
        batch = SEQUENCE * column(table_rows, "batch_seqs")
        weight = column(table_rows, "C") if by_compute else None
        columns = (column(table_rows, name) for name in ("N", "D", "lr"))
        return fit_optima(*columns, batch, weight=weight)

    small = [r for r, c in zip(kept, compute, strict=True) if c <= compute.max() / 3]
    laws = {"ours": fitted(small), "ours, by compute": fitted(small, by_compute=True)}
    laws |= {"all settings": fitted(kept)}
    laws |= {name: published_law(name) for name in ("deepseek", "step-law")}
    lines = []
    for row in [r for r, c in zip(kept, compute, strict=True) if c > compute.max() / 3]:
        for name, one in laws.items():
            found = one.predict(float(row["N"]), float(row["D"]))
            off = np.log(found.learning_rate.best.value / float(row["lr"]))
            batch = found.batch_tokens.best.value / float(row["batch_seqs"]) / SEQUENCE
            lines.append(
                f"| {row['N']} | {float(row['D']) / 1e9:.0f} B | {name} | {np.exp(off):.2f} | "
                f"{50 * bend * off**2:.2f} | {batch:.2f} |"
            )
    table("| N | D | law | rate / optimum | lost % (at that curvature) | batch / optimum |", lines)


def tasks(data: Path) -> None:
    """Gadre's 46 tasks from the true loss, and their 17-task mean chained from compute."""
    rows = read(data / "gadre_overtrain.csv")
    corpora = np.array([r["dataset"] for r in rows])
    size, loss = column(rows, "N"), column(rows, "loss_c4_val")
    names = [name for name in rows[0] if name.startswith("acc_")]
    print("\n## Tasks from loss")
    lines = []
    for curve in ("sigmoid", "exponential"):
        for label, most in (("≤ 0.41 B → 1.4 B, 6.9 B", 1e9), ("≤ 1.4 B → 6.9 B", 2e9)):
            off: dict[bool, list[float]] = {True: [], False: []}
            held: tuple[list[bool], list[bool]] = ([], [])
            for number, name in enumerate(names):
                score = column(rows, name)
                for corpus in np.unique(corpora):
                    fitted = (corpora == corpus) & (size < most)
                    law = fit_task(loss[fitted], score[fitted], curve=curve, draws=300)
                    for i in np.flatnonzero((corpora == corpus) & (size > most)):
                        found = law.predict(float(loss[i]))
                        off[law.supported].append(100 * abs(found.value - score[i]))
                        if law.supported:
                            held[number % 2].append(found.low <= score[i] <= found.high)
            kept, refused = off[True], off[False]
            lines.append(
                f"| {curve} | {label} | {len(kept)} | {np.mean(kept):.2f} | {np.median(kept):.2f} |"
                f" {np.mean(held[0]):.0%} | {np.mean(held[1]):.0%} | {len(refused)} |"
                f" {np.mean(refused):.2f} |"
            )
    table(
        "| curve | fitted → foretold | forecasts | mean points off | median | 90 % held, tasks "
        "that gave the drift | 90 % held, the other tasks | refused | mean off, refused |",
        lines,
    )
    lines = []
    for corpus in np.unique(corpora):
        rows_here = [r for r in rows if r["dataset"] == corpus]
        lines += seventeen(rows_here, str(corpus))
    table(
        "| corpus | run | 17-task error | foretold, chained | off % | from the true loss, off % |",
        lines,
    )


def seventeen(rows: Rows, corpus: str) -> list[str]:
    """Gadre et al. 2024, table 1 and section 4."""
    size, times = column(rows, "N"), column(rows, "chinchilla_multiplier")
    loss, compute = column(rows, "loss_c4_val"), column(rows, "C")
    error = 1 - np.mean([column(rows, f"acc_{name}") for name in SEVENTEEN], axis=0)
    for_task = ((times == 1) & (size < 2e9)) | ((times == 16) & (size < 2e7))
    for_loss = for_task & (size < 1e9)

    def law(x: np.ndarray, floor: float, a: float, b: float, eta: float) -> np.ndarray:
        c, m = x
        return floor + (a * m**eta + b * m**-eta) * c**-eta

    known = np.array([compute, 20 * times])
    start = [1.5, 140, 190, 0.12]
    found, _ = curve_fit(law, known[:, for_loss], loss[for_loss], start, maxfev=99999)
    task: TaskLaw = fit_task(loss[for_task], 1 - error[for_task], curve="exponential")
    lines = []
    for i in np.flatnonzero((size > 5e9) | ((size > 1e9) & (times > 1))):
        chained = 1 - task.curve(law(known[:, i : i + 1], *found))[0]
        direct = 1 - task.curve(loss[i])[0]
        lines.append(
            f"| {corpus} | {rows[i]['run_id'].split('-', 1)[1]} | {error[i]:.4f} | {chained:.4f} | "
            f"{100 * abs(chained / error[i] - 1):.2f} | {100 * abs(direct / error[i] - 1):.2f} |"
        )
    return lines


def mixture(data: Path) -> None:
    """Ye et al.'s runs, four folds: three quarters of the mixtures foretell the rest."""
    rows = read(data / "mixinglaws_domain_curves.csv")
    print("\n## Mixtures")
    lines = []
    for group, scale, step in (
        *(("RedPajama", scale, "30000") for scale in ("70M", "160M", "305M", "410M")),
        *(("5Mix", scale, "30000") for scale in ("70M", "160M", "305M", "410M")),
        *(("3Mix", "410M", "60000"),),
    ):
        kept = [r for r in rows if (r["set"], r["size"], r["step"]) == (group, scale, step)]
        shares = np.array([[float(w) for w in r["run_id"].split("-")[1:]] for r in kept])
        whole = np.abs(shares.sum(axis=1) - 1.0) < 1e-3
        kept, shares = [r for r, w in zip(kept, whole, strict=True) if w], shares[whole]
        domains = [k for k in kept[0] if k not in ("set", "size", "run_id", "step") and kept[0][k]]
        losses = np.array([[float(r[name]) for name in domains] for r in kept])
        sources = [f"source {j}" for j in range(shares.shape[1])]
        foretold, plain, held = np.zeros_like(losses), np.zeros_like(losses), []
        for fold in range(4):
            out = np.arange(len(kept)) % 4 == fold
            law = fit_mixture(
                shares[~out], losses[~out], training=sources, validation=domains, bootstrap=100
            )
            foretold[out], plain[out] = law.losses(shares[out]), losses[~out].mean(axis=0)
            for share, true in zip(shares[out], losses[out], strict=True):
                found = law.predict(dict(zip(sources, share, strict=True)))
                held += [
                    found[d].low <= v <= found[d].high for d, v in zip(domains, true, strict=True)
                ]
        off, base = np.abs(foretold / losses - 1), np.abs(plain / losses - 1)
        ranks = [spearmanr(foretold[:, i], losses[:, i]).statistic for i in range(len(domains))]
        fed = np.all(shares > 0.0, axis=1)
        lines.append(
            f"| {group} {scale} | {len(kept)} | {len(sources)} | {len(domains)} | "
            f"{100 * off.mean():.2f} | {100 * off[fed].mean() if fed.any() else np.nan:.2f} | "
            f"{100 * base.mean():.2f} | {np.median(ranks):.2f} | {np.mean(held):.0%} |"
        )
    table(
        "| runs | mixtures | sources | domains | mean off % | no share zero, off % | mean of the "
        "others, off % | rank correlation (median domain) | 90 % held |",
        lines,
    )


def planted(_: Path) -> None:
    """Expert and precision laws: the published truth with noise, 20 tables each."""
    print("\n## Experts and precision (planted truth: the published constants; 0.2 % noise)")
    grid = np.meshgrid([8e7, 2e8, 5e8, 1.2e9], [1e9, 4e9, 1.6e10, 6.4e10], [1.0, 4.0, 16.0])
    n, d, e = (g.ravel() for g in grid)
    true = np.array([experts.LUDZIEJEWSKI_2025])
    at = [np.array([v]) for v in (4e9, 2e11, 32.0)]
    goal = experts.joint_loss(true, *at)[0, 0]
    clean = experts.joint_loss(true, n, d, e)[0]
    results: dict[str, list[tuple[float, bool]]] = {"experts": [], "precision": [], "added": []}
    bits = [
        g.ravel()
        for g in np.meshgrid([3e7, 6e7, 1.1e8, 2.2e8], [1.5e9, 6e9, 2.6e10], [3, 4, 6, 8, 12])
    ]
    trained, added = precision.published_precision(), precision.published_quantisation()
    losses = np.array([trained.predict(*row).value for row in zip(*bits, strict=True)])
    harms = np.array([added.predict(*row).value for row in zip(*bits, strict=True)])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        law = experts.fit_experts(n, d, e, clean * np.exp(0.002 * rng.standard_normal(n.size)))
        found = law.predict(4e9, 2e11, 32.0)
        results["experts"].append((abs(found.value / goal - 1), found.low <= goal <= found.high))
        noise = rng.standard_normal((2, losses.size))
        one = precision.fit_precision(*bits, losses * np.exp(0.002 * noise[0]))
        two = precision.fit_quantisation(*bits, harms * np.exp(0.1 * noise[1]))
        for name, fitted, truth in (("precision", one, trained), ("added", two, added)):
            found, value = fitted.predict(1e9, 1e11, 5.0), truth.predict(1e9, 1e11, 5.0).value
            results[name].append((abs(found.value / value - 1), found.low <= value <= found.high))
    lines = []
    for name, rows in results.items():
        off, held = (np.mean(values) for values in zip(*rows, strict=True))
        lines.append(f"| {name} | {100 * off:.2f} | {held:.0%} |")
    table("| law | mean off %, 10× and more beyond | truth within 90 % |", lines)
    print(f"\nBest training bits (all parts alike), Kumar's constants: {trained.best_bits():.1f}")
    for count in (1, 4, 16):
        best = experts.published_experts().optimal(1e21, count)
        print(f"E = {count}: N {best.params:.3g}, D {best.tokens:.3g}, loss {best.loss.value:.4f}")


SECTIONS: dict[str, Callable[[Path], None]] = {
    "hyperparameters": hyperparameters,
    "tasks": tasks,
    "mixture": mixture,
    "planted": planted,
}


def main() -> None:
    """Run the sections asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "laws"
    parser.add_argument("--data", type=Path, default=beside)
    parser.add_argument("--only", default=",".join(SECTIONS))
    given = parser.parse_args()
    for name in given.only.split(","):
        SECTIONS[name](given.data)


if __name__ == "__main__":
    main()

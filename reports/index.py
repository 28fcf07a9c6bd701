"""The index page's content: studies, claims and verdicts; complete without a script, which only filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from .markup import clean
from .record import VERDICTS, Claim, Study
from .view import SYMBOLS, anchors_of, counts, text

Entries = Sequence[tuple[Study, str]]


def body(entries: Entries, note: str) -> str:
    """Heading, counts, note, filter, and a table of claims for each study."""
    claims = [claim for study, _ in entries for claim in study.claims]
    judged = [study for study, _ in entries if study.claims]
    profiles = ", ".join(sorted({text(study.profile) for study in judged})) or "none"
    dates = sorted({study.date[:10] for study in judged})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}" if dates else ""
    byline = " · ".join(
        part
        for part in (
            f"{_count(len(judged), 'study', 'studies')}",
            _count(len(claims), "claim", "claims"),
            f"profile {profiles}",
            when,
        )
        if part
    )
    notes = "".join(f"<p>{escape(part)}</p>" for part in clean(note).strip().split("\n\n") if part.strip())
    return (
        f'<h1>Deep-learning theory, measured</h1><p class="byline">{escape(byline)}</p>'
        '<p class="abstract">Each claim below is a published statement with a prediction made before the measurement, a measured verdict, '
        "and at least one control that removes a hypothesis and must fail.</p>"
        f'{_tally(claims)}<div class="chance">{notes}</div>{_filter(claims)}{"".join(_study(study, stem) for study, stem in entries)}'
        '<p id="nothing" class="note" hidden>No claim matches.</p>'
    )


def navigation(entries: Entries) -> str:
    """Links to the studies of the page."""
    items = "".join(
        f'<li><a href="#study-{escape(stem)}"><span>{escape(text(study.title) or text(study.name))}</span></a></li>'
        for study, stem in entries
    )
    return f'<p class="here">Studies</p><ol>{items}</ol>'


def badge(verdict: str) -> str:
    """A verdict as word and sign."""
    return f'<span class="badge {verdict.lower()}"><span class="sign" aria-hidden="true">{SYMBOLS[verdict]}</span>{verdict}</span>'


def _tally(claims: Sequence[Claim]) -> str:
    found = Counter(claim.verdict for claim in claims)
    items = "".join(f"<div><dt>{badge(verdict)}</dt><dd>{found[verdict]}</dd></div>" for verdict in VERDICTS)
    return f'<dl class="tally">{items}</dl>'


def _filter(claims: Sequence[Claim]) -> str:
    found = Counter(claim.verdict for claim in claims)
    boxes = "".join(
        f'<label><input type="checkbox" value="{verdict}" checked> {verdict.capitalize()}</label>'
        for verdict in VERDICTS
        if found[verdict]
    )
    return (
        '<form id="filter" class="filter" role="search" hidden><label class="words">Find '
        '<input type="search" name="words" placeholder="a word of a claim or study" autocomplete="off"></label>'
        f'<fieldset><legend>Verdicts</legend>{boxes}</fieldset><output aria-live="polite"></output></form>'
    )


def _study(study: Study, stem: str) -> str:
    title = escape(text(study.title) or text(study.name))
    about = " · ".join(
        filter(None, [text(study.name), study.date[:10], study.profile and f"profile {text(study.profile)}"])
    )
    summary = (
        counts(study) if study.claims or not study.tables else "; ".join(text(table.title) for table in study.tables)
    )
    return (
        f'<section class="{"study" if study.claims else "measured"}" id="study-{stem}" aria-label="{title}"><h2><a href="{stem}.html">{title}</a></h2>'
        f'<p class="byline">{escape(about)} · <a href="{stem}.html">HTML</a> · <a href="{stem}.pdf">PDF</a></p><p class="muted">{escape(summary)}</p>'
        f"{_claims(study, stem, title) if study.claims else ''}</section>"
    )


def _claims(study: Study, stem: str, title: str) -> str:
    anchors = anchors_of([claim.id for claim in study.claims])
    rows = "".join(_row(claim, f"{stem}.html#{anchor}") for claim, anchor in zip(study.claims, anchors, strict=True))
    head = "".join(f'<th scope="col" class="text">{name}</th>' for name in ("Claim", "Measured", "Verdict"))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Claims of {title}"><table class="claims"><thead>'
        f"<tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(claim: Claim, link: str) -> str:
    differs = (
        ""
        if claim.verdict == claim.expected
        else f'<span class="muted">the literature says {escape(text(claim.expected))}</span>'
    )
    stale = '<span class="muted">stale</span>' if claim.stale else ""
    return (
        f'<tr data-verdict="{claim.verdict}"><td class="text"><a href="{link}">{escape(text(claim.title) or text(claim.id))}</a><br><code>{escape(text(claim.id))}</code></td>'
        f'<td class="text">{escape(text(claim.headline))}</td><td class="text">{badge(claim.verdict)}{differs}{stale}</td></tr>'
    )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"

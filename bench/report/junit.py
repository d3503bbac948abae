"""A run -> JUnit XML: one test case a gate, so that a CI shows gates as it shows tests."""

from __future__ import annotations

from xml.etree import ElementTree

from bench.records import Run, Verdict
from bench.report import words
from bench.report.focus import verdict_name
from bench.report.headline import gate_sentence, verdict_sentence


def render_junit(run: Run) -> str:
    """The whole file. Without gates the suite is empty; a run that is invalid without gates has one case that says so."""
    gates = run.verdict.gates if run.verdict else ()
    name = f"effortbench.{run.experiment.name}"
    suite = ElementTree.Element("testsuite", name=_text(name), timestamp=_text(run.environment.started_at))
    for gate in gates:
        _case(suite, run, gate)
    if not gates and verdict_name(run) == "invalid":
        case = ElementTree.SubElement(suite, "testcase", classname="effortbench", name="verdict")
        ElementTree.SubElement(case, "error", type="invalid", message=_text(verdict_sentence(run)))
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", str(len(suite.findall("testcase/error"))))
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, run: Run, gate: Verdict) -> None:
    classname = f"effortbench.{gate.suite}.{gate.split}"
    case = ElementTree.SubElement(suite, "testcase", classname=_text(classname), name=_text(gate.name))
    sentence, reasons = gate_sentence(run, gate), _text("\n".join(gate.reasons))
    said = gate.reasons[0] if gate.reasons else sentence
    if gate.verdict == "pass":
        ElementTree.SubElement(case, "system-out").text = _text(sentence) + (f"\n{reasons}" if reasons else "")
        return
    if gate.waived is not None:  # a CI that reads this file agrees with the exit code, and shows the verdict
        message = f"waived, the verdict stays {gate.verdict}: {gate.waived}"
        ElementTree.SubElement(case, "skipped", type=gate.verdict, message=_text(message)).text = f"{_text(sentence)}\n{reasons}"
        return
    if not gate.required:
        message = f"not required, the verdict is {gate.verdict}: {said}"
        ElementTree.SubElement(case, "skipped", type=gate.verdict, message=_text(message)).text = f"{_text(sentence)}\n{reasons}"
        return
    kind = "error" if gate.verdict == "invalid" else "failure"
    ElementTree.SubElement(case, kind, type=gate.verdict, message=_text(f"{gate.verdict}: {said}")).text = reasons


def _text(text: str) -> str:
    """XML 1.0 has no escape for control characters, so they are made visible first."""
    return words.harmless(text, 20_000)

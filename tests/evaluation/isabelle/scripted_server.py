"""Stands for `isabelle server`: the documented protocol over TCP, with a toy logic. Started as a program by the tests.

In the toy logic a goal is a string with the words `needs TACTIC`; it holds where `by TACTIC` or `sorry` follows.
Some words do more: `needs hammer` is what Sledgehammer finds a proof of, `loops on TACTIC` never ends with it,
`SILENT` never answers, `BREAK` closes the connection within a message, `BREAKONCE` does so at the first time,
`NONSENSE` answers otherwise, `UNLOADABLE` fails as a task. What was asked is logged beside the program.
"""

import json
import pathlib
import re
import socket
import socketserver
import sys
import time

PASSWORD = "open-sesame"
_GOAL = re.compile(r'"(?P<goal>[^"]*needs[^"]*)"(?P<used>[^"]*?)(?P<step>\bby [^\n]*|\bsorry\b|\bsledgehammer\b[^\n]*)')
_FOLDER = pathlib.Path(sys.argv[0]).resolve().parent


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        if self.rfile.readline().decode().strip() != PASSWORD:
            return
        self.say("OK", {"isabelle_id": "scripted", "isabelle_name": "Isabelle2022"})
        while line := self.rfile.readline().decode():
            command, _, arguments = line.strip().partition(" ")
            arguments = json.loads(arguments) if arguments else {}
            with (_FOLDER / "log").open("a", encoding="utf-8") as log:
                log.write(json.dumps([command, arguments]) + "\n")
            getattr(self, command)(arguments)

    def say(self, kind, body):
        text = f"{kind} {json.dumps(body)}".encode()
        long = len(text) > 100 or b"\n" in text
        self.wfile.write((b"%d\n" % (len(text) + 1) if long else b"") + text + b"\n")

    def session_start(self, arguments):
        self.say("OK", {"task": "1"})
        if (_FOLDER / "no_session").exists():
            return self.say("FAILED", {"kind": "error", "message": "Bad session", "task": "1"})
        self.say("NOTE", {"kind": "writeln", "message": "Building HOL-Number_Theory ...", "task": "1"})
        self.say("FINISHED", {"session_id": "s1", "tmp_dir": "/tmp", "task": "1"})

    def purge_theories(self, arguments):
        self.say("OK", {"purged": [{"node_name": name} for name in arguments["theories"]], "retained": []})

    def use_theories(self, arguments):
        self.say("OK", {"task": "2"})
        if arguments["session_id"] != "s1":
            return self.say("FAILED", {"kind": "error", "message": "No session", "task": "2"})
        folder, names = pathlib.Path(arguments["master_dir"]), arguments["theories"]
        texts = {name: (folder / f"{name}.thy").read_text(encoding="utf-8") for name in names}
        whole = "\n".join(texts.values())
        if "SILENT" in whole:
            time.sleep(600)
        if "NONSENSE" in whole:
            return self.wfile.write(b"# !!!\n")
        if "UNLOADABLE" in whole:
            return self.say("FAILED", {"kind": "error", "message": 'Cannot load theory "AFP"', "task": "2"})
        if "BREAK" in whole and not ("BREAKONCE" in whole and (_FOLDER / "broken").exists()):
            (_FOLDER / "broken").touch()
            self.wfile.write(b"1000\nFINISHED {")
            return self.request.shutdown(socket.SHUT_RDWR)
        for percentage in (50, 100):
            self.say("NOTE", {"kind": "writeln", "percentage": percentage, "message": "theory " * 20, "task": "2"})
        nodes = [judge(name, text) for name, text in texts.items()]
        if not all(node["status"]["consolidated"] for node in nodes):
            time.sleep(arguments["check_delay"] * arguments["check_limit"])
        ok = all(node["status"]["ok"] for node in nodes)
        return self.say("FINISHED", {"ok": ok, "errors": [], "nodes": nodes, "task": "2"})


def judge(name, text):
    messages, finished = [], True
    if not re.match(rf"theory {name} imports", text):
        messages.append(("error", "Bad theory name"))
    for found in _GOAL.finditer(text):
        goal, step = found["goal"], found["step"].strip()
        if step.startswith("by ") and f"loops on {step[3:]}" in goal:
            finished = False
        elif step.startswith("sledgehammer"):
            messages.append(("writeln", "Sledgehammering..."))
            if "needs hammer" in goal:
                messages.append(("writeln", "e: Try this: by wrong (12 ms)"))
                messages.append(("writeln", "cvc4: Try this: by hammer (0.4 ms)"))
        elif step != "sorry" and not re.search(rf"needs {re.escape(step[3:])}(?![\w(])", goal):
            messages.append(("error", f"Failed to finish proof: {goal}"))
    if "ill-formed" in text:
        messages.append(("error", "Outer syntax error"))
    if "thm_oracles" in text:
        messages.append(("writeln", "oracles: skip_proof" if "sorry" in text or "CHEAT" in text else "oracles: none"))
    ok = not any(kind == "error" for kind, _ in messages)
    status = {"ok": ok, "total": 9, "unprocessed": 0, "running": 0 if finished else 1, "warned": 0, "failed": not ok}
    status |= {"finished": 9, "canceled": False, "consolidated": finished, "percentage": 100 if finished else 80}
    told = [{"kind": kind, "message": message, "pos": {"line": 1}} for kind, message in messages]
    return {"node_name": f"/somewhere/{name}.thy", "theory_name": f"Draft.{name}", "status": status, "messages": told}


if __name__ == "__main__":
    if (_FOLDER / "no_start").exists():
        sys.exit("No space left on device")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        assert sys.argv[1:3] == ["server", "-n"]
        print(f'server "{sys.argv[3]}" = 127.0.0.1:{server.server_address[1]} (password "{PASSWORD}")', flush=True)
        server.serve_forever()

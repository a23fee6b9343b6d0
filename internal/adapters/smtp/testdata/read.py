"""Reads mails (RFC 5322 and MIME) with Python's own parser; prints one JSON list."""
import base64
import email
import email.policy
import json
import sys


def read(path):
    with open(path, "rb") as f:
        raw = f.read()
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    parts, defects = [], [repr(d) for d in mail.defects]
    for part in mail.walk():
        defects += [repr(d) for d in part.defects] + [repr(d) for h in part.values() for d in getattr(h, "defects", ())]
        if part.is_multipart():
            continue
        parts.append({
            "type": part.get_content_type(),
            "filename": part.get_filename(),
            "id": part["Content-ID"],
            "purpose": part["Weiche-Purpose"],
            "digest": part["Content-Digest"],
            "content": base64.b64encode(part.get_payload(decode=True)).decode(),
        })
    return {"headers": [[k, str(v)] for k, v in mail.items()], "type": mail.get_content_type(), "parts": parts,
            "defects": defects, "longest": max(len(line) for line in raw.split(b"\n"))}


print(json.dumps([read(p) for p in sys.argv[1:]]))

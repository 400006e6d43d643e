# SPDX-License-Identifier: Apache-2.0
"""Signs model/ with the reference implementation (PyPI model-signing) and a throw-away key."""
import subprocess
from pathlib import Path

import model_signing

here = Path(__file__).parent
subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "/tmp/private.pem"], check=True)
subprocess.run(["openssl", "ec", "-in", "/tmp/private.pem", "-pubout", "-out", here / "public.pem"], check=True)
signature = here / "model" / "model.sig"
signature.unlink(missing_ok=True)
hashing = model_signing.hashing.Config().set_ignored_paths(paths=[signature])
model_signing.signing.Config().use_elliptic_key_signer(private_key="/tmp/private.pem").set_hashing_config(
    hashing).sign(here / "model", signature)
model_signing.verifying.Config().use_elliptic_key_verifier(public_key=here / "public.pem").verify(
    here / "model", signature)

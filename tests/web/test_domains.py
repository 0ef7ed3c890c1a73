"""Registered domains and the domains of mathematics."""

import numpy as np
import pytest

from dsmath.web.domains import find_math_domains, registered_domain


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("docs.scipy.org", "scipy.org"),
        ("flint.numbertheory.org.uk", "numbertheory.org.uk"),
        ("wiki.linuxer.com.cn", "linuxer.com.cn"),
        ("someone.github.io", "someone.github.io"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("docs.scipy.org:8080", "scipy.org"),
    ],
)
def test_registered_domain_follows_the_public_suffix_list(host, domain):
    assert registered_domain(host) == domain


def test_domain_is_mathematical_strictly_above_the_share():
    domain_N = ["a.org"] * 10 + ["b.org"] * 10 + ["c.org"]
    collected_N = np.zeros(21, dtype=bool)
    collected_N[[0, 1, 10]] = True
    found = find_math_domains(domain_N, collected_N, min_share=0.1)
    assert [(domain.domain, domain.pages, domain.collected, domain.is_math) for domain in found] == [
        ("a.org", 10, 2, True),
        ("b.org", 10, 1, False),
        ("c.org", 1, 0, False),
    ]

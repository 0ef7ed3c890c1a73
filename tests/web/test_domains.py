"""Registered domains and the domains of mathematics."""

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
    by_domain = {"c.org": (1, 0, 0.2), "b.org": (10, 1, 3.5), "a.org": (10, 2, 0.0)}
    found = find_math_domains(by_domain, min_share=0.1)
    assert [(domain.domain, domain.pages, domain.collected, domain.is_math, domain.gain) for domain in found] == [
        ("a.org", 10, 2, True, 0.0),
        ("b.org", 10, 1, False, 3.5),
        ("c.org", 1, 0, False, 0.2),
    ]

"""Groups a crawl by registered domain and finds the domains of mathematics."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import tldextract

# The snapshot of the public suffix list that the library brings: nothing is fetched, nothing is cached on disk.
_SUFFIXES = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)


@dataclasses.dataclass(frozen=True)
class Domain:
    """A registered domain's pages in the crawl.

    Attributes:
      domain: such as "mathoverflow.net"; sites under a hosting suffix such as github.io are domains of their own.
      pages: number of its pages.
      collected: number of those that were collected.
      share: collected / pages.
      is_math: whether the share is above the threshold.
      gain: expected number of mathematical pages among the others: the sum of their scores.
    """

    domain: str
    pages: int
    collected: int
    share: float
    is_math: bool
    gain: float


@functools.lru_cache(maxsize=1_000_000)
def registered_domain(host: str) -> str:
    """The registered domain of a host by the public suffix list; the host itself where it has none."""
    host = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return _SUFFIXES(host).top_domain_under_public_suffix or host


def find_math_domains(by_domain: Mapping[str, Sequence[float]], *, min_share: float) -> list[Domain]:
    """The domains of a crawl, most collected first; a domain is mathematical above `min_share`.

    Args:
      by_domain: number of pages, of collected pages and the sum of the other pages' scores; the whole crawl.
      min_share: 0.1 in the paper; the share must be greater.
    Source: DeepSeekMath §2.1.
    """
    domains = [
        Domain(name, int(pages), int(collected), collected / pages, collected / pages > min_share, round(gain, 4))
        for name, (pages, collected, gain) in by_domain.items()
    ]
    return sorted(domains, key=lambda domain: (-domain.collected, domain.domain))

"""Groups a crawl by registered domain and finds the domains of mathematics."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
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
    """

    domain: str
    pages: int
    collected: int
    share: float
    is_math: bool


@functools.lru_cache(maxsize=1_000_000)
def registered_domain(host: str) -> str:
    """The registered domain of a host by the public suffix list; the host itself where it has none."""
    host = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return _SUFFIXES(host).top_domain_under_public_suffix or host


def find_math_domains(domain_N: Sequence[str], collected_N: np.ndarray, *, min_share: float) -> list[Domain]:
    """Counts each domain's pages, most collected first; a domain is mathematical above `min_share`.

    Args:
      domain_N: each page's registered domain; the whole crawl.
      collected_N: bool [N], whether the page was collected.
      min_share: 0.1 in the paper; the share must be greater.
    Source: DeepSeekMath §2.1.
    """
    name_D, index_N = np.unique(np.asarray(domain_N, dtype=object).astype(str), return_inverse=True)
    pages_D = np.bincount(index_N, minlength=len(name_D))
    collected_D = np.bincount(index_N[np.asarray(collected_N, dtype=bool)], minlength=len(name_D))
    domains = [
        Domain(str(name), int(pages), int(collected), float(collected / pages), bool(collected / pages > min_share))
        for name, pages, collected in zip(name_D, pages_D, collected_D, strict=True)
    ]
    return sorted(domains, key=lambda domain: (-domain.collected, domain.domain))

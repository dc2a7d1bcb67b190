"""What to recommend to whom: from what people really did, and each with a reason that is true.

An act weighs by its kind and halves every 14 days. Doing the same to the same product again renews
the act and adds nothing, so reloading a page is no vote. A person's interest in a product is the
sum over kinds; crowd(p) is the interest of everybody else in p. The score of a candidate c is

    0.60 together + 0.25 affinity + 0.15 popularity          each in [0, 1], rounded to 4 digits

together    Item-to-item similarity (Linden, Smith, York 2003, "Amazon.com Recommendations:
            Item-to-Item Collaborative Filtering") of c to each product p the user knows:
                similarity(p, c) = sum over shoppers min(interest in p, interest in c)
                                   / (sqrt(crowd(p) crowd(c)) + 10)
            The root makes it a cosine (Ochiai's, for weights): what everybody buys isn't similar
            to everything. The 10, two purchases, keeps a single shopper from proving much. Links
            add up to 1 - product over p of (1 - similarity(p, c) * strength(p)), where strength is
            interest in p / (greatest interest + 1): a newcomer's only look counts for half.
affinity    The user's interest in other products of c's category / (interest in all + 10). One
            look is not a liking: it takes two products, or more than a view.
popularity  crowd(c) / the greatest crowd. Nothing below the median crowd, nor below what a single
            view 14 days ago weighs, for neither is popular right now.

Never recommended: what the user bought in the last 90 days, what the caller says was recommended
lately, what the catalogue lacks. At most two products per category. What the user looked at and
didn't buy may come back, but earns nothing by having been looked at, and takes two places at most,
so that three or more always hold something new. (Amazon leaves out whatever is in the basket;
we don't: a shopper is glad of the tent that goes with the stove, even when seen before.)
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import Final, Literal, NamedTuple

Kind = Literal["view", "wishlist", "cart", "purchase"]
What = Literal["bought together", "chosen together", "viewed together", "liked", "popular"]

WEIGHTS: Final[Mapping[Kind, int]] = {"view": 1, "wishlist": 2, "cart": 3, "purchase": 5}
HALF_LIFE: Final = timedelta(days=14)
BOUGHT_LATELY: Final = timedelta(days=90)
RECOMMENDED_LATELY: Final = timedelta(days=14)
FEWEST_WORTH_SENDING: Final = 3
MOST_PER_CATEGORY: Final = 2
MOST_SEEN_BEFORE: Final = 2

_TOGETHER, _AFFINITY, _POPULARITY = 0.60, 0.25, 0.15
_DOUBT = 2 * WEIGHTS["purchase"]
_POPULAR_FROM = WEIGHTS["view"] / 2
_TOGETHER_BY: Final[Mapping[int, What]] = {
    1: "viewed together",
    2: "chosen together",
    3: "chosen together",
    5: "bought together",
}


@dataclass(frozen=True, slots=True)
class Product:
    product_id: str
    name: str
    category: str


@dataclass(frozen=True, slots=True)
class Act:
    """Something a shopper did to a product; `at` is aware, and counts as now when it is later."""

    user_id: str
    product_id: str
    kind: Kind
    at: datetime


class Why(NamedTuple):
    """Why a product is recommended. `other`: the product or the category that it has to do with."""

    what: What
    other: str = ""

    @property
    def sentence(self) -> str:
        match self.what:
            case "liked":
                return f"Because you like {self.other}"
            case "popular":
                return "Popular right now"
            case _:
                return f"{self.what.capitalize()} with {self.other}"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`score` is in (0, 1]: how sure we are, comparable from one user to another. `reason` is
    English; `why` is for those who say it in another language."""

    product_id: str
    name: str
    score: float
    reason: str
    why: Why | None = field(default=None, compare=False)


class _Interest(NamedTuple):
    """What one shopper's acts on one product amount to; `deepest` is the WEIGHTS of a kind."""

    weight: float
    deepest: int


class _Part(NamedTuple):
    points: float
    why: Why


_NOTHING: Final = _Part(0.0, Why("popular"))
_Interests = Mapping[str, Mapping[str, _Interest]]  # by user and product, or the other way


def recommend(
    *,
    user_id: str,
    history: Sequence[Act],
    others: Sequence[Act],
    catalogue: Mapping[str, Product],
    popularity: Mapping[str, float],
    recently_recommended: Collection[str],
    now: datetime,
    limit: int = 5,
) -> list[Recommendation]:
    """At most `limit` products for one user, best first, ties by product id; often fewer.

    `history`: the user's own acts, reaching back 90 days at least. `others`: all acts of people who
    touched the same products, as many people as the caller cares to read. `popularity`: what
    `popularity_of` says about everybody, this user included. `recently_recommended`: ids of the
    last RECOMMENDED_LATELY. Their order doesn't matter. Fewer than FEWEST_WORTH_SENDING are not
    worth a notification; that is the caller's to decide.
    """
    own = [act for act in history if act.user_id == user_id and act.product_id in catalogue]
    strangers = [act for act in others if act.user_id != user_id]
    known = _interests(own, now).get(user_id, {})
    evidence = _evidence(catalogue, known, _interests(strangers, now), popularity)
    ruled_out = {*recently_recommended, *_bought_lately(own, now)}
    judged = [evidence.judge(product) for product in catalogue if product not in ruled_out]
    ranked = sorted(judged, key=lambda candidate: (-candidate.score, candidate.product_id))
    promising = (candidate for candidate in ranked if candidate.score > 0)
    return _varied(promising, catalogue, {act.product_id for act in own}, limit)


def popularity_of(acts: Iterable[Act], now: datetime) -> dict[str, float]:
    """The interest of all shoppers in each product, summed: 5 for a purchase made just now."""
    return _summed(_interests(acts, now))


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What the parts of a score are taken from.

    `known`: the user's interests, and `by_category` their products. `shoppers`: the interests of
    all others, by product and by shopper.
    """

    catalogue: Mapping[str, Product]
    known: Mapping[str, _Interest]
    greatest_interest: float
    total_interest: float
    by_category: Mapping[str, Sequence[str]]
    shoppers: _Interests
    crowd: Mapping[str, float]
    popular_from: float
    greatest_crowd: float

    def judge(self, candidate: str) -> Recommendation:
        parts = self._together(candidate), self._affinity(candidate), self._popularity(candidate)
        score = round(math.fsum(part.points for part in parts), 4)
        why = max(parts, key=lambda part: part.points).why
        return Recommendation(candidate, self.catalogue[candidate].name, score, why.sentence, why)

    def _together(self, candidate: str) -> _Part:
        full = self.greatest_interest + WEIGHTS["view"]
        links: dict[str, _Interest] = {}
        for product in sorted(self.known.keys() - {candidate}):
            shared = self._shared(product, candidate)
            if shared.deepest:
                doubtful = math.sqrt(self.crowd[product] * self.crowd[candidate]) + _DOUBT
                strength = self.known[product].weight / full
                links[product] = shared._replace(weight=strength * shared.weight / doubtful)
        if not links:
            return _NOTHING
        strongest = max(links, key=lambda product: links[product].weight)
        why = Why(_TOGETHER_BY[links[strongest].deepest], self.catalogue[strongest].name)
        together = 1 - math.prod(1 - link.weight for link in links.values())
        return _Part(_TOGETHER * together, why)

    def _shared(self, one: str, other: str) -> _Interest:
        """The interest in both of them; with `deepest` 0 where nobody shares it."""
        ones, others = self.shoppers.get(one, {}), self.shoppers.get(other, {})
        pairs = [(ones[shopper], others[shopper]) for shopper in ones.keys() & others.keys()]
        return _Interest(
            math.fsum(min(a.weight, b.weight) for a, b in pairs),
            max((min(a.deepest, b.deepest) for a, b in pairs), default=0),
        )

    def _affinity(self, candidate: str) -> _Part:
        category = self.catalogue[candidate].category
        alike = [self.known[other] for other in self.by_category[category] if other != candidate]
        if len(alike) < 2 and all(interest.deepest == WEIGHTS["view"] for interest in alike):
            return _NOTHING
        liking = math.fsum(interest.weight for interest in alike)
        affinity = liking / (self.total_interest + _DOUBT)
        return _Part(_AFFINITY * affinity, Why("liked", category))

    def _popularity(self, candidate: str) -> _Part:
        if self.crowd[candidate] < self.popular_from:
            return _NOTHING
        popularity = self.crowd[candidate] / self.greatest_crowd
        return _Part(_POPULARITY * popularity, Why("popular"))


def _evidence(
    catalogue: Mapping[str, Product],
    known: Mapping[str, _Interest],
    strangers: _Interests,
    popularity: Mapping[str, float],
) -> _Evidence:
    by_category: defaultdict[str, list[str]] = defaultdict(list)
    for product in known:
        by_category[catalogue[product].category].append(product)
    shoppers: defaultdict[str, dict[str, _Interest]] = defaultdict(dict)
    for shopper, interests in strangers.items():
        for product, interest in interests.items():
            shoppers[product][shopper] = interest
    crowd = _crowd(catalogue, known, strangers, popularity)
    crowds = [weight for weight in crowd.values() if weight > 0] or [0.0]
    own = [interest.weight for interest in known.values()]
    return _Evidence(
        catalogue=catalogue,
        known=known,
        greatest_interest=max(own, default=0.0),
        total_interest=math.fsum(own),
        by_category=by_category,
        shoppers=shoppers,
        crowd=crowd,
        popular_from=max(median(crowds), _POPULAR_FROM),
        greatest_crowd=max(crowds),
    )


def _crowd(
    products: Iterable[str],
    known: Mapping[str, _Interest],
    strangers: _Interests,
    popularity: Mapping[str, float],
) -> dict[str, float]:
    """Everybody's interest but the user's; never less than the strangers', should it be stale."""
    nobody = _Interest(0.0, 0)
    read = _summed(strangers)
    return {
        product: round(
            max(
                popularity.get(product, 0.0) - known.get(product, nobody).weight,
                read.get(product, 0.0),
            ),
            9,  # digits: taking one's own out must not tell equal crowds apart
        )
        for product in products
    }


def _summed(interests: _Interests) -> dict[str, float]:
    weights: defaultdict[str, list[float]] = defaultdict(list)
    for products in interests.values():
        for product, interest in products.items():
            weights[product].append(interest.weight)
    return {product: math.fsum(weights[product]) for product in sorted(weights)}


def _interests(acts: Iterable[Act], now: datetime) -> _Interests:
    weights: defaultdict[tuple[str, str], dict[Kind, float]] = defaultdict(dict)
    for act in acts:
        kinds = weights[act.user_id, act.product_id]
        kinds[act.kind] = max(kinds.get(act.kind, 0.0), _weight(act, now))
    interests: defaultdict[str, dict[str, _Interest]] = defaultdict(dict)
    for (user, product), kinds in weights.items():
        if weight := math.fsum(kinds.values()):
            interests[user][product] = _Interest(weight, max(WEIGHTS[kind] for kind in kinds))
    return interests


def _weight(act: Act, now: datetime) -> float:
    age = max(now - act.at, timedelta())
    return WEIGHTS[act.kind] * math.pow(0.5, age / HALF_LIFE)


def _bought_lately(own: Iterable[Act], now: datetime) -> set[str]:
    purchases = (act for act in own if act.kind == "purchase")
    return {act.product_id for act in purchases if now - act.at <= BOUGHT_LATELY}


def _varied(
    ranked: Iterable[Recommendation],
    catalogue: Mapping[str, Product],
    seen_before: Collection[str],
    limit: int,
) -> list[Recommendation]:
    chosen: list[Recommendation] = []
    categories: Counter[str] = Counter()
    seen = 0
    for candidate in ranked:
        if len(chosen) >= limit:
            break
        category = catalogue[candidate.product_id].category
        again = candidate.product_id in seen_before
        if categories[category] == MOST_PER_CATEGORY or (again and seen == MOST_SEEN_BEFORE):
            continue
        categories[category] += 1
        seen += again
        chosen.append(candidate)
    return chosen

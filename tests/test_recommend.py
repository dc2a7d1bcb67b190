"""Recommendations: what earns one, what forbids one, and that each reason is true."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifications.recommend import (
    FEWEST_WORTH_SENDING,
    MOST_PER_CATEGORY,
    MOST_SEEN_BEFORE,
    RECOMMENDED_LATELY,
    Act,
    Kind,
    Product,
    Recommendation,
    popularity_of,
    recommend,
)

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
DEMO = Path(__file__).parent.parent / "services" / "demo"
ME = "me"


def shelf(**categories: str) -> dict[str, Product]:
    """`shelf(Running="shoes socks")`: products named after their ids."""
    return {
        product: Product(product, product.title(), category)
        for category, products in categories.items()
        for product in products.split()
    }


SHOP = shelf(
    Running="shoes socks vest",
    Hiking="boots poles pack",
    Camping="tent mat",
    Cycling="lights",
    Climbing="rope",
)
ORDINARY = "shoes boots tent lights rope"


def did(user: str, deeds: str, days_ago: float = 0) -> list[Act]:
    """`did("ann", "purchase:shoes view:socks")`: one act for each word."""
    at = NOW - timedelta(days=days_ago)
    pairs = (deed.split(":") for deed in deeds.split())
    return [Act(user, product, as_kind(kind), at) for kind, product in pairs]


def as_kind(word: str) -> Kind:
    kinds: dict[str, Kind] = {
        "view": "view",
        "wishlist": "wishlist",
        "cart": "cart",
        "purchase": "purchase",
    }
    return kinds[word]


def for_me(
    acts: Sequence[Act],
    *,
    catalogue: Mapping[str, Product] = SHOP,
    lately: Collection[str] = (),
    user: str = ME,
    limit: int = 5,
) -> list[Recommendation]:
    """What the service asks: own acts, acts of those who touched the same, everybody's weight."""
    own = [act for act in acts if act.user_id == user]
    touched = {act.product_id for act in own}
    near = {act.user_id for act in acts if act.product_id in touched}
    return recommend(
        user_id=user,
        history=own,
        others=[act for act in acts if act.user_id in near - {user}],
        catalogue=catalogue,
        popularity=popularity_of(acts, NOW),
        recently_recommended=lately,
        now=NOW,
        limit=limit,
    )


def ids(recommendations: Iterable[Recommendation]) -> list[str]:
    return [recommendation.product_id for recommendation in recommendations]


def reasons(recommendations: Iterable[Recommendation]) -> dict[str, str]:
    return {each.product_id: each.reason for each in recommendations}


def everyone_views(products: str) -> list[Act]:
    return [act for product in products.split() for act in did("crowd", f"view:{product}")]


# What acts weigh


@pytest.mark.parametrize(
    ("deeds", "days_ago", "weight"),
    [
        ("view:shoes", 0, 1),
        ("wishlist:shoes", 0, 2),
        ("cart:shoes", 0, 3),
        ("purchase:shoes", 0, 5),
        ("view:shoes cart:shoes purchase:shoes", 0, 9),
        ("purchase:shoes", 14, 2.5),
        ("purchase:shoes", 28, 1.25),
        ("purchase:shoes", -3, 5),
        ("view:shoes view:shoes view:shoes", 0, 1),
    ],
)
def test_an_act_weighs_by_its_kind_and_halves_every_fortnight(
    deeds: str, days_ago: float, weight: float
) -> None:
    assert popularity_of(did("ann", deeds, days_ago), NOW) == {"shoes": pytest.approx(weight)}


def test_doing_it_again_renews_the_act_instead_of_adding_to_it() -> None:
    acts = did("ann", "view:shoes", 14) + did("ann", "view:shoes", 0)

    assert popularity_of(acts, NOW) == {"shoes": 1.0}
    assert popularity_of(reversed(acts), NOW) == {"shoes": 1.0}


def test_popularity_adds_up_over_people() -> None:
    acts = did("ann", "view:shoes") + did("bob", "purchase:shoes view:tent")

    assert popularity_of(acts, NOW) == {"shoes": 6.0, "tent": 1.0}


def test_an_act_of_another_century_weighs_nothing_and_breaks_nothing() -> None:
    ancient = did(ME, "view:shoes", 300_000) + did("ann", "view:shoes view:socks", 300_000)

    assert popularity_of(ancient, NOW) == {}
    assert for_me(ancient) == []


# What the score is


def test_the_score_is_the_documented_sum() -> None:
    acts = did(ME, "purchase:shoes") + did("ann", "purchase:shoes purchase:socks")

    together = 1 - (1 - 5 / (5 + 10) * 5 / (5 + 1))
    affinity = 5 / (5 + 10)
    popularity = 5 / 5
    assert for_me(acts)[0] == Recommendation(
        "socks",
        "Socks",
        round(0.60 * together + 0.25 * affinity + 0.15 * popularity, 4),
        "Bought together with Shoes",
    )


def test_links_to_several_known_products_add_up() -> None:
    acts = did(ME, "view:shoes view:boots") + did("ann", "cart:shoes cart:boots cart:tent")

    link = 3 / (3 + 10) * 1 / (1 + 1)
    expected = 0.60 * (1 - (1 - link) ** 2) + 0.15
    assert {each.product_id: each.score for each in for_me(acts)}["tent"] == round(expected, 4)


def test_a_companion_bought_lately_outranks_one_bought_long_ago() -> None:
    acts = did(ME, "purchase:shoes")
    acts += did("ann", "purchase:shoes purchase:tent", 1)
    acts += did("bob", "purchase:shoes purchase:rope", 40)

    found = {each.product_id: each.score for each in for_me(acts)}
    assert found["tent"] > found["rope"]


def test_what_everybody_buys_does_not_swamp_what_belongs_together() -> None:
    acts = did(ME, "purchase:shoes")
    for shopper in ("ann", "bob", "cid"):
        acts += did(shopper, "purchase:shoes purchase:tent purchase:rope")
    for passer_by in range(100):
        acts += did(f"passer-by-{passer_by}", "purchase:rope")

    assert ids(for_me(acts))[:2] == ["tent", "rope"]


def test_ties_are_broken_by_product_id() -> None:
    assert ids(for_me(everyone_views("tent rope lights boots"))) == [
        "boots",
        "lights",
        "rope",
        "tent",
    ]


# Whom it serves


def test_a_newcomer_gets_what_is_popular_best_first() -> None:
    acts = did("ann", "purchase:tent view:rope") + did("bob", "cart:tent wishlist:boots")

    found = for_me(acts)
    assert ids(found) == ["tent", "boots"]
    assert set(reasons(found).values()) == {"Popular right now"}


def test_a_newcomers_only_look_already_counts_beside_popularity() -> None:
    acts = did(ME, "view:tent")
    for shopper in ("ann", "bob", "cid"):
        acts += did(shopper, "purchase:tent purchase:mat")
        acts += did(f"{shopper}'s friend", "purchase:rope")

    assert reasons(for_me(acts)) == {
        "mat": "Bought together with Tent",
        "rope": "Popular right now",
        "tent": "Popular right now",
    }


def test_a_buyer_gets_what_other_buyers_of_the_same_bought() -> None:
    acts = did(ME, "purchase:shoes", 3)
    for shopper in ("ann", "bob"):
        acts += did(shopper, "purchase:shoes purchase:socks view:tent", 5)
    acts += did("eve", "purchase:rope", 30)

    assert ids(for_me(acts))[0] == "socks"


def test_a_stranger_to_an_empty_shop_gets_nothing() -> None:
    assert for_me([]) == []


def test_an_empty_catalogue_recommends_nothing() -> None:
    acts = did(ME, "purchase:shoes") + did("ann", "purchase:shoes purchase:socks")

    assert for_me(acts, catalogue={}) == []


@pytest.mark.parametrize("limit", [-1, 0, 1, 3])
def test_no_more_than_the_limit_and_the_best_of_them(limit: int) -> None:
    acts = everyone_views(ORDINARY)

    assert for_me(acts, limit=limit) == for_me(acts)[: max(limit, 0)]


def test_it_returns_even_too_few_and_says_how_few_are_worth_sending() -> None:
    assert len(for_me(everyone_views("tent"))) == 1 < FEWEST_WORTH_SENDING == 3


# What is never recommended


@pytest.mark.parametrize(("days_ago", "expected"), [(-1, 0), (1, 0), (89, 0), (90, 0), (91, 1)])
def test_a_purchase_rules_its_product_out_for_ninety_days(days_ago: float, expected: int) -> None:
    acts = did(ME, "purchase:tent", days_ago) + everyone_views(ORDINARY)

    assert ids(for_me(acts)).count("tent") == expected


def test_an_old_purchase_does_not_hide_a_recent_one() -> None:
    acts = did(ME, "purchase:tent", 5) + did(ME, "purchase:tent", 120) + everyone_views(ORDINARY)

    assert "tent" not in ids(for_me(acts))


def test_only_the_users_own_purchases_rule_out() -> None:
    assert "tent" in ids(for_me(did("ann", "purchase:tent", 5) + everyone_views(ORDINARY)))


@pytest.mark.parametrize(("days_ago", "expected"), [(13, 0), (15, 1)])
def test_what_was_recommended_within_a_fortnight_waits(days_ago: float, expected: int) -> None:
    recommended = {"tent": NOW - timedelta(days=days_ago)}
    lately = {product for product, at in recommended.items() if NOW - at <= RECOMMENDED_LATELY}

    found = for_me(everyone_views(ORDINARY), lately=lately)
    assert ids(found).count("tent") == expected


def test_what_left_the_catalogue_is_neither_recommended_nor_named() -> None:
    acts = did(ME, "purchase:relic") + did("ann", "purchase:relic purchase:ghost purchase:tent")

    assert reasons(for_me(acts)) == {"tent": "Popular right now"}


def test_at_most_two_of_a_category_and_the_next_category_moves_up() -> None:
    acts = did("ann", "purchase:shoes purchase:socks purchase:vest cart:tent cart:rope")
    acts += did("bob", "view:boots view:poles view:lights")

    assert ids(for_me(acts)) == ["shoes", "socks", "rope", "tent"]


def test_what_was_only_looked_at_may_come_back_but_takes_two_places_at_most() -> None:
    seen = "shoes boots tent lights"
    acts = did(ME, "view:shoes view:boots view:tent view:lights") + everyone_views(ORDINARY)

    found = ids(for_me(acts))
    assert len(set(found) & set(seen.split())) == MOST_SEEN_BEFORE
    assert "rope" in found


def test_having_looked_at_something_does_not_recommend_it() -> None:
    alone = did(ME, "cart:tent view:tent wishlist:tent")

    assert "tent" not in ids(for_me(alone))


def test_a_product_that_nobody_touched_yet_still_reaches_who_likes_its_category() -> None:
    assert reasons(for_me(did(ME, "cart:tent"))) == {"mat": "Because you like Camping"}


# Whether the reason is true


@pytest.mark.parametrize(
    ("hers", "reason"),
    [
        ("purchase:shoes purchase:tent", "Bought together with Shoes"),
        ("purchase:shoes cart:tent", "Chosen together with Shoes"),
        ("wishlist:shoes purchase:tent", "Chosen together with Shoes"),
        ("purchase:shoes view:tent", "Viewed together with Shoes"),
        ("view:shoes purchase:tent", "Viewed together with Shoes"),
        ("view:shoes view:tent", "Viewed together with Shoes"),
    ],
)
def test_together_says_no_more_than_somebody_did_with_both(hers: str, reason: str) -> None:
    busy = [act for n in range(9) for act in did(f"crowd-{n}", "purchase:rope cart:rope")]
    acts = did(ME, "purchase:shoes") + did("ann", hers) + busy

    assert reasons(for_me(acts))["tent"] == reason


def test_two_people_who_bought_one_each_did_not_buy_together() -> None:
    acts = did(ME, "purchase:shoes")
    acts += did("ann", "purchase:shoes view:tent") + did("bob", "view:shoes purchase:tent")
    acts += [act for n in range(9) for act in did(f"crowd-{n}", "purchase:rope")]

    assert reasons(for_me(acts))["tent"] == "Viewed together with Shoes"


def test_the_reason_names_the_product_that_contributed_most() -> None:
    acts = did(ME, "purchase:shoes view:boots")
    acts += did("ann", "purchase:shoes purchase:tent purchase:boots")

    assert reasons(for_me(acts))["tent"] == "Bought together with Shoes"


def test_of_known_products_that_contributed_alike_the_first_by_id_is_named() -> None:
    known = "shoes boots rope lights vest poles pack"
    acts = [act for product in known.split() for act in did(ME, f"purchase:{product}")]
    acts += [act for product in known.split() for act in did("ann", f"purchase:{product}")]
    acts += did("ann", "purchase:tent")

    assert reasons(for_me(acts))["tent"] == "Bought together with Boots"


@pytest.mark.parametrize(
    ("mine", "liked"),
    [
        ("view:shoes", False),
        ("view:shoes view:tent", False),
        ("view:shoes view:vest", True),
        ("cart:shoes", True),
        ("purchase:shoes", True),
        ("cart:socks view:socks", False),
    ],
)
def test_a_category_is_liked_from_two_products_or_more_than_a_look(mine: str, liked: bool) -> None:
    busy = [act for n in range(9) for act in did(f"crowd-{n}", "purchase:boots purchase:pack")]
    acts = did(ME, mine) + busy + did("eve", "view:socks")

    assert (reasons(for_me(acts)).get("socks") == "Because you like Running") is liked


def test_what_only_the_user_does_is_not_popular() -> None:
    acts = did(ME, "purchase:tent", 100) + did(ME, "view:tent cart:rope")

    assert "Popular right now" not in reasons(for_me(acts)).values()
    assert "rope" not in ids(for_me(acts))


def test_the_less_popular_half_is_not_called_popular() -> None:
    acts = did("ann", "purchase:tent cart:rope view:boots wishlist:lights")

    assert ids(for_me(acts)) == ["tent", "rope"]


@pytest.mark.parametrize("hours_ago", [1, 4, 19, 20, 23])
def test_taking_the_users_own_acts_out_leaves_equal_crowds_equal(hours_ago: int) -> None:
    mine = did(ME, "view:tent", hours_ago / 24)

    found = recommend(
        user_id=ME,
        history=mine,
        others=[],
        catalogue=SHOP,
        popularity=popularity_of(mine + everyone_views(ORDINARY), NOW),
        recently_recommended=(),
        now=NOW,
    )
    assert ids(found) == sorted(ORDINARY.split())


def test_what_was_popular_last_winter_is_not_popular_right_now() -> None:
    assert for_me(did("ann", "purchase:tent", 100)) == []


def test_acts_under_another_name_are_not_taken_for_the_users() -> None:
    stray = did("ann", "purchase:tent view:boots")
    mine = did(ME, "purchase:rope view:tent")

    def asked(history: Sequence[Act], others: Sequence[Act]) -> list[Recommendation]:
        return recommend(
            user_id=ME,
            history=history,
            others=others,
            catalogue=SHOP,
            popularity={"tent": 6.0, "lights": 5.0},
            recently_recommended=(),
            now=NOW,
        )

    assert asked(mine + stray, mine) == asked(mine, [])


# Whatever the history

A_PRODUCT = st.sampled_from([*SHOP, "relic"])
AN_ACT = st.builds(
    Act,
    user_id=st.sampled_from([ME, "ann", "bob", "cid"]),
    product_id=A_PRODUCT,
    kind=st.sampled_from([as_kind(word) for word in ("view", "wishlist", "cart", "purchase")]),
    at=st.integers(-48, 24 * 130).map(lambda hours: NOW - timedelta(hours=hours)),
)
A_HISTORY = st.lists(AN_ACT, max_size=60)


@given(acts=A_HISTORY, lately=st.sets(A_PRODUCT, max_size=3), limit=st.integers(0, 8))
def test_every_rule_holds_whatever_the_history(
    acts: list[Act], lately: set[str], limit: int
) -> None:
    found = for_me(acts, lately=lately, limit=limit)

    mine = [act for act in acts if act.user_id == ME]
    bought = {
        act.product_id
        for act in mine
        if act.kind == "purchase" and act.at >= NOW - timedelta(days=90)
    }
    per_category = Counter(SHOP[product].category for product in ids(found))
    scores = [each.score for each in found]
    assert len(found) <= limit
    assert set(ids(found)) <= SHOP.keys() - bought - lately
    assert len(set(ids(found))) == len(found)
    assert all(count <= MOST_PER_CATEGORY for count in per_category.values())
    assert len({act.product_id for act in mine} & set(ids(found))) <= MOST_SEEN_BEFORE
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)


@given(acts=A_HISTORY)
def test_every_reason_is_true_whatever_the_history(acts: list[Act]) -> None:
    mine = {act.product_id for act in acts if act.user_id == ME}
    theirs: dict[str, dict[str, set[Kind]]] = {}
    for act in acts:
        if act.user_id != ME:
            theirs.setdefault(act.user_id, {}).setdefault(act.product_id, set()).add(act.kind)

    for each in for_me(acts):
        product = each.product_id
        what, _, known = each.reason.partition(" together with ")
        shoppers = [deeds for deeds in theirs.values() if {product, known.lower()} <= deeds.keys()]
        match what:
            case "Bought" | "Chosen" | "Viewed":
                enough: dict[str, set[Kind]] = {
                    "Bought": {"purchase"},
                    "Chosen": {"purchase", "cart", "wishlist"},
                    "Viewed": {"purchase", "cart", "wishlist", "view"},
                }
                assert known.lower() in mine - {product}
                assert any(
                    deeds[product] & enough[what] and deeds[known.lower()] & enough[what]
                    for deeds in shoppers
                )
            case "Popular right now":
                assert any(product in deeds for deeds in theirs.values())
            case _:
                category = SHOP[product].category
                assert each.reason == f"Because you like {category}"
                assert any(
                    SHOP[other].category == category for other in mine & SHOP.keys() - {product}
                )


@given(acts=A_HISTORY, data=st.data())
def test_the_order_of_the_inputs_changes_nothing(acts: list[Act], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(acts))
    shop = dict(data.draw(st.permutations(list(SHOP.items()))))

    assert for_me(shuffled, catalogue=shop) == for_me(acts)


@given(acts=A_HISTORY)
def test_an_event_delivered_twice_changes_nothing(acts: list[Act]) -> None:
    assert for_me(acts + acts) == for_me(acts)


@given(acts=A_HISTORY, strays=st.lists(AN_ACT, max_size=20))
def test_people_with_nothing_in_common_change_nothing_by_being_read(
    acts: list[Act], strays: list[Act]
) -> None:
    mine = [act for act in acts if act.user_id == ME]
    others = [act for act in acts if act.user_id != ME]
    touched = {act.product_id for act in mine}
    unrelated = [
        Act(f"stray-{act.user_id}", act.product_id, act.kind, act.at)
        for act in strays
        if act.product_id not in touched
    ]

    def read(others: Sequence[Act]) -> list[Recommendation]:
        return recommend(
            user_id=ME,
            history=mine,
            others=others,
            catalogue=SHOP,
            popularity=popularity_of(acts + unrelated, NOW),
            recently_recommended=(),
            now=NOW,
        )

    assert read(others + unrelated) == read(others)


@given(acts=A_HISTORY, stale=st.dictionaries(A_PRODUCT, st.floats(0, 1e6)))
def test_scores_stay_within_bounds_when_popularity_is_out_of_date(
    acts: list[Act], stale: dict[str, float]
) -> None:
    found = recommend(
        user_id=ME,
        history=[act for act in acts if act.user_id == ME],
        others=acts,
        catalogue=SHOP,
        popularity=stale,
        recently_recommended=(),
        now=NOW,
    )

    assert all(0 < each.score <= 1 for each in found)


def test_popularity_that_lags_behind_the_acts_does_not_inflate_the_score() -> None:
    mine, hers = did(ME, "purchase:shoes"), did("ann", "purchase:shoes purchase:socks")

    lagging = recommend(
        user_id=ME,
        history=mine,
        others=hers,
        catalogue=SHOP,
        popularity={},
        recently_recommended=(),
        now=NOW,
    )
    assert lagging == for_me(mine + hers)


# The demo shop


def demo() -> tuple[dict[str, Product], list[Act]]:
    catalogue = json.loads((DEMO / "catalogue.json").read_text())
    history = json.loads((DEMO / "history.json").read_text())
    products = (Product(row["productId"], row["name"], row["category"]) for row in catalogue)
    return {product.product_id: product for product in products}, [
        Act(
            row["user"],
            row["productId"],
            as_kind(row["kind"]),
            NOW - timedelta(days=row["daysAgo"]),
        )
        for row in history
    ]


def test_the_demo_gives_a_runner_and_a_newcomer_what_suits_each() -> None:
    catalogue, acts = demo()

    assert reasons(for_me(acts, catalogue=catalogue, user="alice")) == {
        "headlamp": "Bought together with Trail Shoes",
        "running-vest": "Bought together with Trail Shoes",
        "rain-jacket": "Popular right now",
        "hiking-socks": "Bought together with Trekking Poles",
        "gps-watch": "Because you like Running",
    }
    assert reasons(for_me(acts, catalogue=catalogue, user="ben")) == {
        "headlamp": "Popular right now",
        "rain-jacket": "Popular right now",
        "power-bank": "Bought together with Enamel Mug",
        "titanium-pot": "Bought together with Folding Camp Chair",
        "gas-stove": "Bought together with Folding Camp Chair",
    }


def test_the_demo_still_has_something_to_tell_after_the_first_five() -> None:
    catalogue, acts = demo()

    for user in ("alice", "ben"):
        first = set(ids(for_me(acts, catalogue=catalogue, user=user)))
        second = ids(for_me(acts, catalogue=catalogue, user=user, lately=first))
        assert len(second) >= FEWEST_WORTH_SENDING
        assert first.isdisjoint(second)


def test_the_demo_shop_is_consistent_and_holds_no_address() -> None:
    catalogue, acts = demo()

    assert len(catalogue) == 40
    assert set(Counter(product.category for product in catalogue.values()).values()) == {5}
    assert {act.product_id for act in acts} <= catalogue.keys()
    assert {"alice", "ben"} < {act.user_id for act in acts}
    assert "@" not in (DEMO / "history.json").read_text()

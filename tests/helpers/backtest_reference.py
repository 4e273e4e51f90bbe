"""The slow, obvious account: plain Python with decimals, name by name, written from the conventions alone.

It shares no code with finseek.backtest but the names of the options. Prices come as lists of dicts by session.
"""

from __future__ import annotations

from decimal import Decimal, getcontext

getcontext().prec = 40
D = Decimal
ZERO, ONE, YEAR = D(0), D(1), D(252)
RANK = {"STRONG_SELL": -2, "SELL": -1, "HOLD": 0, "BUY": 1, "STRONG_BUY": 2}


def dec(value):
    return None if value is None or value != value else D(float(value))


def sign(x):
    return (x > 0) - (x < 0)


def clip(x, low, high):
    return max(low, min(high, x))


def deviation(values):
    mean = sum(values) / len(values)
    return (sum((v - mean) ** 2 for v in values) / (len(values) - 1)).sqrt()


class Market:
    """Bars as decimals; None where a bar is missing. ``day`` counts sessions of the table."""

    def __init__(self, prices, options, actions=None):
        self.tickers = list(prices.tickers)
        self.options = options
        self.days = len(prices.sessions)
        column = {t: k for k, t in enumerate(self.tickers)}
        get = lambda name, day, t: dec(getattr(prices, name)[day, column[t]])  # noqa: E731
        self.raw, self.factor = {}, {}
        for t in self.tickers:
            for day in range(self.days):
                bar = {name: get(name, day, t) for name in ("open", "high", "low", "close", "adjusted_close", "volume")}
                self.raw[t, day] = bar
                if actions is None:
                    whole = bar["close"] is not None and bar["adjusted_close"] is not None
                    self.factor[t, day] = bar["adjusted_close"] / bar["close"] if whole else None
                else:
                    later = [a["split"] for a in actions if a["ticker"] == t and a["day"] > day]
                    self.factor[t, day] = ONE
                    for ratio in later:
                        self.factor[t, day] /= D(ratio)
        self.paid = {}
        for a in actions or []:
            self.paid[a["ticker"], a["day"]] = D(a["dividend"])

    def close(self, t, day):
        """Adjusted close of the day, the fill price where the close is missing, or None."""
        bar = self.raw[t, day]
        if bar["close"] is not None and self.factor[t, day] is not None:
            return bar["close"] * self.factor[t, day]
        return self.fill(t, day)

    def raw_fill(self, t, day):
        bar = self.raw[t, day]
        names = {"next_open": ["open"], "next_close": ["close"], "vwap_proxy": ["open", "high", "low", "close"]}
        values = [bar[name] for name in names[self.options.execution]]
        return None if None in values else sum(values) / len(values)

    def fill(self, t, day):
        raw = self.raw_fill(t, day)
        return None if raw is None or self.factor[t, day] is None else raw * self.factor[t, day]

    def mark(self, t, day):
        """Last known close up to the day."""
        while day >= 0:
            if (known := self.close(t, day)) is not None:
                return known
            day -= 1
        return None

    def settlement(self, t, day):
        """Price at which a delisted name is closed on the day, or None."""
        loss, end = self.options.delisting_loss, self.last_bar(t)
        if loss is None or end != day - 1 or end == self.days - 1:
            return None
        return self.mark(t, end) * (1 - D(loss))

    def daily_return(self, t, day):
        if day < 1 or self.close(t, day) is None or self.close(t, day - 1) is None:
            return None
        return self.close(t, day) / self.close(t, day - 1) - 1

    def volatility(self, t, day):
        window = self.options.volatility_window
        values = [self.daily_return(t, d) for d in range(day - window + 1, day + 1)]
        return None if None in values else deviation(values)

    def money_volume(self, t, day):
        """Mean raw close times volume of the last ``volume_window`` sessions up to the day."""
        values = []
        for d in range(max(0, day - self.options.limits.volume_window + 1), day + 1):
            bar = self.raw[t, d]
            if bar["close"] is not None and bar["volume"] is not None:
                values.append(bar["close"] * bar["volume"])
        return sum(values) / len(values) if values else None

    def last_bar(self, t):
        known = [d for d in range(self.days) if self.close(t, d) is not None]
        return known[-1] if known else None


def direction(word, options):
    d = {str(k): v for k, v in options.action_map.items()}[word]
    return d if options.shorts else max(d, 0)


def sized(market, signals, day, first, options):
    """Target weight of every ticker that has a signal on the day: {ticker: weight}."""
    today = {t: signals[t, day] for t in market.tickers if (t, day) in signals}
    if any("weight" in s for s in signals.values()):
        return {t: D(s["weight"]) for t, s in today.items()}
    way = {t: D(direction(s["action"], options)) for t, s in today.items()}
    over = options.equal_weight_over
    members = {
        "universe": len(market.tickers),
        "listed": sum(market.fill(t, day) is not None for t in market.tickers),
        "active": sum(w != 0 for w in way.values()),
    }[over]
    share = ONE / max(members, 1)
    strategy = options.sizing_strategy
    if strategy == "equal_weight":
        return {t: w * share for t, w in way.items()}
    if strategy == "fixed_pct":
        return {t: w * D(options.fixed_pct) for t, w in way.items()}
    if strategy == "conviction":
        strong = D(options.strong_conviction)
        return {t: w * share * (strong if abs(RANK[today[t]["action"]]) == 2 else 1) for t, w in way.items()}
    if strategy == "probability_weighted":
        out = {}
        for t, s in today.items():
            mean = sum(D(p) * r for p, r in zip(s["p"], (-2, -1, 0, 1, 2), strict=True)) / 2
            out[t] = (mean if options.shorts else max(mean, ZERO)) * share
        return out
    if strategy == "inverse_volatility":
        inverse = {}
        for t in market.tickers:
            v = market.volatility(t, day)
            inverse[t] = ONE / v if v else ZERO
        total = sum(inverse.values())
        return {t: w * inverse[t] / total if total else ZERO for t, w in way.items()}
    if strategy == "volatility_target":
        base = {t: w * share for t, w in way.items() if w != 0}
        history = []
        for d in range(day - options.volatility_window + 1, day + 1):
            moves = {t: market.daily_return(t, d) for t in base}
            if None in moves.values():
                return dict.fromkeys(way, ZERO)
            history.append(sum((base[t] * moves[t] for t in base), ZERO))
        book = deviation(history) * YEAR.sqrt()
        scale = D(options.target_volatility) / book if book else ZERO
        return {t: base.get(t, ZERO) * scale for t in way}
    assert strategy == "kelly"
    earned = []
    for s in range(first, day - 1):
        for t in market.tickers:
            if (t, s) in signals and (w := direction(signals[t, s]["action"], options)):
                entry, leave = market.fill(t, s + 1), market.settlement(t, s + 2) or market.fill(t, s + 2)
                if entry is not None and leave is not None:
                    earned.append(w * (leave / entry - 1))
    edge = max(sum(earned) / len(earned), ZERO) if len(earned) >= options.kelly_history else ZERO
    out = {}
    for t, w in way.items():
        v = market.volatility(t, day)
        full = edge / v**2 if v else ZERO
        out[t] = w * min(D(options.kelly_fraction) * full, D(options.kelly_cap))
    return out


def targets(market, signals, first, last, options, monday):
    """Orders of each decision day: {day: {ticker: weight}}; a ticker that is not there has no order."""
    age = dict.fromkeys(market.tickers, 10**9)
    wanted, books, ordered = {}, {t: [] for t in market.tickers}, dict.fromkeys(market.tickers, ZERO)
    for day in range(first, last + 1):
        fresh = sized(market, signals, day, first, options)
        wanted[day] = {}
        for t in market.tickers:
            age[t] = 0 if t in fresh else age[t] + 1
            held = t in fresh and signals[t, day].get("action") == "HOLD"
            if options.holding_period is not None:
                if held and options.hold == "keep":
                    book = books[t][-1] if books[t] else ZERO
                else:
                    book = fresh.get(t, ZERO)
                books[t].append(book)
                wanted[day][t] = sum(books[t][-options.holding_period :]) / options.holding_period
            elif t in fresh:
                if not (held and options.hold == "keep"):
                    wanted[day][t] = fresh[t]
            elif age[t] > options.signal_expiry:
                wanted[day][t] = ZERO
        if options.rebalance == "weekly" and day != first and monday(day) == monday(day - 1):
            wanted[day] = {}
        if options.rebalance == "on_change":
            wanted[day] = {t: w for t, w in wanted[day].items() if w != ordered[t]}
            ordered.update(wanted[day])
    return wanted


def cost_of(market, t, day, delta, options):
    """Slippage and commission of one order that fills on the day."""
    if delta == 0:
        return ZERO, ZERO
    size, costs = abs(delta), options.costs
    rate = D(options.slippage) + D(costs.half_spread)
    if costs.impact:
        rate += D(costs.impact) * market.volatility(t, day - 1) * (size / market.money_volume(t, day - 1)).sqrt()
    fee = D(options.transaction_cost) * size * (1 + rate * sign(delta))
    if costs.per_share:
        fee += D(costs.per_share) * size / market.raw_fill(t, day)
    return rate * size, max(fee, D(costs.minimum))


def to_whole(market, t, day, delta, h):
    if h + delta == 0:
        return delta
    price = market.raw_fill(t, day)
    shares = delta / price
    whole = int(shares + sign(shares) * D("1e-9")) * price
    return -h if abs(h + whole) < price / 10**6 else whole


def limited(market, day, delta, h, equity, ordered, options):
    """Apply every limit to the orders of a day, in their order."""
    limits, names = options.limits, market.tickers
    target = {t: h[t] + delta[t] for t in names}

    def fit(among, room):
        kept = sum((abs(target[t]) for t in among if t not in ordered), ZERO)
        wanted = sum((abs(target[t]) for t in among if t in ordered), ZERO)
        if wanted > 0:
            scale = clip((room - kept) / wanted, ZERO, ONE)
            for t in among:
                if t in ordered:
                    target[t] *= scale

    if limits.max_weight is not None:
        bound = D(limits.max_weight) * equity
        for t in ordered:
            target[t] = clip(target[t], -bound, bound)
    if limits.max_sector is not None:
        for sector in sorted({limits.sectors.get(t, t) for t in names}):
            fit([t for t in names if limits.sectors.get(t, t) == sector], D(limits.max_sector) * equity)
    if limits.max_gross is not None:
        fit(names, D(limits.max_gross) * equity)
    if limits.max_net is not None:
        for way in (1, -1):
            net = way * sum(target.values())
            side = [t for t in ordered if way * target[t] > 0]
            heavy = sum((abs(target[t]) for t in side), ZERO)
            if net > D(limits.max_net) * equity and heavy > 0:
                scale = clip(1 - (net - D(limits.max_net) * equity) / heavy, ZERO, ONE)
                for t in side:
                    target[t] *= scale
    delta = {t: target[t] - h[t] for t in names}
    for t in ordered:
        if h[t] * target[t] > 0 and abs(delta[t]) < D(options.no_trade_band) * equity:
            delta[t] = ZERO
        if limits.max_participation is not None:
            bound = D(limits.max_participation) * market.money_volume(t, day - 1)
            delta[t] = clip(delta[t], -bound, bound)
    if limits.max_turnover is not None:
        total = sum(abs(x) for x in delta.values())
        scale = clip(D(limits.max_turnover) * equity / total, ZERO, ONE) if total else ONE
        delta = {t: x * scale for t, x in delta.items()}
    if not options.fractional:
        delta = {t: to_whole(market, t, day, x, h[t]) if x else x for t, x in delta.items()}
    return delta


def account(prices, signals, options, monday=None, actions=None):
    """Equity at each close from the first decision day to the day after the last: list of decimals.

    signals: {(ticker, day): {"action": word, "p": five} or {"weight": w}}.
    """
    market = Market(prices, options, actions)
    days = sorted(day for _, day in signals)
    first, last = days[0], days[-1]
    wanted = targets(market, signals, first, last, options, monday)
    costs = options.costs
    cash, h = D(options.capital), dict.fromkeys(market.tickers, ZERO)
    equity = [cash]
    for day in range(first + 1, last + 2):
        short = sum((-x for x in h.values() if x < 0), ZERO)
        interest = D(costs.cash_interest) * max(cash - short, ZERO) - D(costs.margin_interest) * max(-cash, ZERO)
        income = -D(costs.borrow_fee) * short / YEAR
        for t in market.tickers:
            if (t, day) in market.paid and h[t] != 0:
                per_share = market.paid[t, day] * market.factor[t, day]
                income += h[t] / market.mark(t, day - 1) * per_share
        cash += interest / YEAR + income
        gone = []
        for t in market.tickers:
            if market.fill(t, day) is not None and market.mark(t, day - 1) is not None:
                h[t] *= market.fill(t, day) / market.mark(t, day - 1)
            if (final := market.settlement(t, day)) is not None:
                h[t] *= final / market.mark(t, day - 1)
                gone.append(t)
        total = cash + sum(h.values())
        delta, ordered = dict.fromkeys(market.tickers, ZERO), []
        for t, w in wanted[day - 1].items():
            ready = market.fill(t, day) is not None
            if costs.impact or options.limits.max_participation is not None:
                ready = ready and bool(market.money_volume(t, day - 1))
            if costs.impact:
                ready = ready and market.volatility(t, day - 1) is not None
            if ready:
                delta[t] = w * max(total, ZERO) - h[t]
                ordered.append(t)
        delta = limited(market, day, delta, h, total, ordered, options)
        spent = {t: x + sum(cost_of(market, t, day, x, options)) for t, x in delta.items()}
        if not options.allow_leverage:
            buys = {t: x for t, x in delta.items() if x > 0}
            have = max(cash - sum(s for t, s in spent.items() if t not in buys), ZERO)
            scaled = dict(buys)
            for _ in range(60):
                need = sum((x + sum(cost_of(market, t, day, x, options)) for t, x in scaled.items()), ZERO)
                if need <= have * (1 + D("1e-12")):
                    break
                scaled = {t: x * have / need for t, x in scaled.items()}
                if not (costs.minimum or costs.impact):
                    break
            if scaled != buys and not options.fractional:
                scaled = {t: to_whole(market, t, day, x, h[t]) for t, x in scaled.items()}
            delta.update(scaled)
        for t, x in delta.items():
            cash -= x + sum(cost_of(market, t, day, x, options))
            h[t] += x
        for t in gone:
            cash += h[t]
            h[t] = ZERO
        for t in market.tickers:
            if market.fill(t, day) is not None:
                h[t] *= market.close(t, day) / market.fill(t, day)
            elif market.close(t, day) is not None and market.mark(t, day - 1) is not None:
                h[t] *= market.close(t, day) / market.mark(t, day - 1)
        equity.append(cash + sum(h.values()))
    return equity

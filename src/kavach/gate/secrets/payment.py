"""Keys of payment and trade services: who has one moves money.

Test keys count less than live ones. May be used by: kavach.gate.secrets.
"""

from __future__ import annotations

from kavach.gate.secrets.shape import keyed, token
from kavach.model.verdict import Severity

_UUID = "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"

PAYMENT_RULES = (
    token("stripe-key", "stripe", Severity.CRITICAL, "A Stripe key.", r"[sr]k_(?:live|prod)_[A-Za-z0-9]{10,250}",
          (b"sk_live_", b"rk_live_", b"sk_prod_", b"rk_prod_")),
    token("stripe-test-key", "stripe", Severity.MEDIUM, "A Stripe test key.", r"[sr]k_test_[A-Za-z0-9]{10,250}",
          (b"sk_test_", b"rk_test_")),
    token("stripe-webhook-secret", "stripe", Severity.HIGH, "A Stripe webhook's secret.", r"whsec_[A-Za-z0-9+/]{24,80}",
          (b"whsec_",), bits=3.3),
    token("square-token", "square", Severity.CRITICAL, "A Square token.",
          r"(?:EAAA[\w-]{60}|sq0(?:atp|csp|idp)-[\w-]{22,43})", (b"eaaa", b"sq0"), bits=3.3),
    token("paypal-token", "paypal", Severity.CRITICAL, "A PayPal or Braintree token.",
          r"access_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{32}", (b"access_token$",)),
    token("shopify-token", "shopify", Severity.CRITICAL, "A Shopify token.", r"shp(?:at|ca|pa|ss|ua|tka)_[A-Za-z0-9]{32}",
          (b"shpat_", b"shpca_", b"shppa_", b"shpss_", b"shpua_", b"shptka_"), bits=3.2),
    token("razorpay-key", "razorpay", Severity.HIGH, "A Razorpay key.", r"rzp_live_[A-Za-z0-9]{14}", (b"rzp_live_",)),
    token("flutterwave-key", "flutterwave", Severity.HIGH, "A Flutterwave key.",
          r"FLW(?:SEC|PUB)K(?:_TEST)?-[0-9a-zA-Z]{12,40}(?:-X)?", (b"flwseck", b"flwpubk"), bits=3.0),
    token("easypost-key", "easypost", Severity.HIGH, "An EasyPost key.", r"EZ[AT]K[A-Za-z0-9]{54}",
          (b"ezak", b"eztk"), bits=4.0),
    token("shippo-token", "shippo", Severity.HIGH, "A Shippo token.", r"shippo_(?:live|test)_[a-fA-F0-9]{40}",
          (b"shippo_",)),
    token("duffel-token", "duffel", Severity.HIGH, "A Duffel token.", r"duffel_(?:test|live)_[A-Za-z0-9_=-]{43}",
          (b"duffel_",)),
    token("plaid-token", "plaid", Severity.CRITICAL, "A Plaid access token.",
          rf"(?:access|public|link)-(?:sandbox|development|production)-{_UUID}",
          (b"-sandbox-", b"-development-", b"-production-"), bits=3.3),
    keyed("plaid-key", "plaid", Severity.HIGH, "A Plaid client id or secret.", ("plaid",),
          "[A-Za-z0-9]{30}|[A-Za-z0-9]{24}"),
    token("gocardless-token", "gocardless", Severity.CRITICAL, "A GoCardless token.", r"live_[A-Za-z0-9_=-]{40}",
          (b"live_",), bits=3.7),
    token("adyen-key", "adyen", Severity.CRITICAL, "An Adyen key.", r"AQE[A-Za-z0-9]{5,10}[A-Za-z0-9+/=_.-]{80,200}",
          (b"aqe",), bits=4.3),
    token("mollie-key", "mollie", Severity.HIGH, "A Mollie key.", r"(?:live|test)_[A-Za-z0-9]{30}",
          (b"live_", b"test_"), bits=3.8),
    keyed("lob-key", "lob", Severity.HIGH, "A Lob key.", ("lob",), "(?:live|test)_(?:pub_)?[a-f0-9]{31,35}"),
    keyed("coinbase-token", "coinbase", Severity.CRITICAL, "A Coinbase token.", ("coinbase",), "[A-Za-z0-9_-]{64}",
          bits=3.0),
    keyed("bittrex-key", "bittrex", Severity.CRITICAL, "A Bittrex key.", ("bittrex",), "[A-Za-z0-9]{32}", bits=3.0),
    keyed("kraken-key", "kraken", Severity.CRITICAL, "A Kraken key.", ("kraken",), "[A-Za-z0-9/=_+-]{80,90}",
          bits=3.0),
    keyed("kucoin-key", "kucoin", Severity.CRITICAL, "A KuCoin key.", ("kucoin",), f"[a-f0-9]{{24}}|{_UUID}"),
    keyed("binance-key", "binance", Severity.CRITICAL, "A Binance key.", ("binance",), "[A-Za-z0-9]{64}", bits=3.5),
    keyed("finicity-key", "finicity", Severity.HIGH, "A Finicity key.", ("finicity",), "[a-f0-9]{32}|[a-z0-9]{20}"),
    keyed("finnhub-token", "finnhub", Severity.MEDIUM, "A Finnhub token.", ("finnhub",), "[a-z0-9]{20}"),
    keyed("etsy-token", "etsy", Severity.HIGH, "An Etsy token.", ("etsy",), "[a-z0-9]{24}", bits=3.0),
    keyed("squarespace-token", "squarespace", Severity.HIGH, "A Squarespace token.", ("squarespace",), _UUID),
    keyed("freshbooks-token", "freshbooks", Severity.HIGH, "A FreshBooks token.", ("freshbooks",), "[a-z0-9]{64}"),
)

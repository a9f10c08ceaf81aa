"""The cast: bot Ada with a Telegram token, and Eva, who is paired with Telegram account 501."""

from tests.gateways.cast import ada, ada_on_telegram, eva, eva_talks, gateway, gateways, telegram

__all__ = ["ada", "ada_on_telegram", "eva", "eva_talks", "gateway", "gateways", "telegram"]

"""How people reach the bots: telegram, web chat, API. Adapters carry; they never decide."""

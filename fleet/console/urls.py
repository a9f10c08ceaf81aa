"""Addresses of the console. Who may use which stands in `fleet/permissions.py`."""

from __future__ import annotations

from django.urls import path

from fleet.console.views import accounts, bots, chats, kill_switch, logins, runner, shell

app_name = "console"

urlpatterns = [
    path("", shell.home, name="home"),
    path("fleet/", bots.bot_list, name="fleet"),
    path("fleet/<slug:slug>/", bots.bot_detail, name="bot"),
    path("chat/", chats.chat_list, name="chat"),
    path("chat/new/", chats.new_chat, name="chat_new"),
    path("chat/<int:conversation_id>/", chats.conversation, name="conversation"),
    path("chat/<int:conversation_id>/messages/", chats.messages, name="messages"),
    path("chat/<int:conversation_id>/messages/<int:message_id>/", chats.message, name="message"),
    path("chat/<int:conversation_id>/busy/", chats.busy_mode, name="busy_mode"),
    path("chat/turns/<int:turn_id>/stop/", chats.stop_turn, name="stop_turn"),
    path("chat/deliveries/<int:delivery_id>/", chats.delivery, name="delivery"),
    path("kill-switch/", kill_switch.kill_switch, name="kill_switch"),
    path("kill-switch/badge/", kill_switch.kill_badge, name="kill_badge"),
    path("kill-switch/stop/", kill_switch.stop, name="stop"),
    path("kill-switch/orders/<int:order_id>/resume/", kill_switch.resume, name="resume"),
    path("kill-switch/receipts/<int:order_id>/", kill_switch.stop_receipt, name="stop_receipt"),
    path("logins/", logins.login_list, name="logins"),
    path("logins/<int:breaker_id>/reset/", logins.reset_login, name="reset_login"),
    path("runner/", runner.runner, name="runner"),
    path("runner/workers/<uuid:worker_id>/", runner.drain_worker, name="drain_worker"),
    path("runner/processes/<uuid:process_id>/end/", runner.end_process, name="end_process"),
    path("account/", accounts.account, name="account"),
    path("account/pairing-code/", accounts.pair, name="pair"),
    path("account/tokens/", accounts.make_token, name="make_token"),
    path("account/tokens/<int:token_id>/revoke/", accounts.revoke_token, name="revoke_token"),
    path("account/telegram/", accounts.gateway_token, name="gateway_token"),
    path("account/look/", shell.preferences, name="preferences"),
    path("<slug:page>/", shell.planned, name="planned"),
]

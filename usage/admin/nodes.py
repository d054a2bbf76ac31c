"""Nodes and their keys: made, switched off and on, replaced and revoked by buttons."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.admin.keys import ask_to_revoke
from config import clock
from config.admin import ReadOnlyAdmin, ReadOnlyInline, display, moment
from config.buttons import ConfirmForm, ask, button, show_secret, subject_of

from .. import callbacks, nodes, sequences
from ..models import Node, NodeKey

MAY_CHANGE_NODE = "usage.change_node"


class NodeForm(forms.Form):
    """A new node; without sources it speaks for the source that is named as itself."""

    name = forms.CharField(label=_("Name"), max_length=100, widget=UnfoldAdminTextInputWidget)
    cluster = forms.CharField(
        label=_("Cluster"), max_length=100, required=False, widget=UnfoldAdminTextInputWidget
    )


class NodeKeyInline(ReadOnlyInline):
    model = NodeKey
    fields = ("public_id", "created", "last_used", "revoked")
    readonly_fields = ("public_id", "created", "last_used", "revoked")
    show_change_link = True

    @display(description=_("Public id"))
    def public_id(self, row: NodeKey) -> str:
        return row.api_key.public_id

    @display(description=_("Created"))
    def created(self, row: NodeKey) -> str | None:
        return moment(row.api_key.created_at)

    @display(description=_("Last used"))
    def last_used(self, row: NodeKey) -> str | None:
        return moment(row.api_key.last_used_at)

    @display(description=_("Revoked"))
    def revoked(self, row: NodeKey) -> str | None:
        return moment(row.api_key.revoked_at)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("api_key", "node")


@admin.register(Node)
class NodeAdmin(ReadOnlyAdmin):
    list_display = ("name", "cluster", "sources", "active", "created_at")
    list_filter = ("active", "cluster")
    search_texts = ("name", "cluster")
    search_ids = ("id",)
    ordering = ("name",)
    inlines = (NodeKeyInline,)
    exclude = ("callback_secret",)  # shown once, when it is made
    readonly_fields = ("last_sequence", "gaps")
    actions_list = ("create",)
    actions_detail = ("switch_off", "switch_on", "new_key", "new_secret")
    fitting = {
        "switch_off": lambda node: node.active,
        "switch_on": lambda node: not node.active,
    }

    @display(description=_("Last number of a batch"))
    def last_sequence(self, node: Node) -> int | None:
        return sequences.sequence_of(node_id=node.pk).last

    @display(description=_("Numbers of batches that did not arrive"))
    def gaps(self, node: Node) -> str:
        found = sequences.sequence_of(node_id=node.pk).gaps
        return ", ".join(f"{first}-{last}" if first < last else f"{first}" for first, last in found)

    @button(description=_("Create a node"), permissions=["usage.add_node"], icon="add")
    def create(self, request: HttpRequest) -> HttpResponse:
        def perform(form: NodeForm) -> HttpResponse:
            node, token = nodes.create_node(
                name=form.cleaned_data["name"],
                cluster=form.cleaned_data["cluster"],
                now=clock.now(),
            )
            self.log_addition(request, node, gettext("Create a node"))
            return show_secret(
                self, request, title=gettext("Node key"), name=node.name, secret=token
            )

        return ask(
            self, request, title=gettext("Create a node"), form_class=NodeForm, perform=perform
        )

    @button(
        description=_("Switch off"),
        permissions=[MAY_CHANGE_NODE],
        icon="power_settings_new",
        danger=True,
    )
    def switch_off(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._switch(
            request,
            object_id,
            active=False,
            title=gettext("Switch off"),
            description=gettext(
                "The node is refused whatever it reports or asks for until it is switched on "
                "again; its keys stay. It can send what it kept afterwards."
            ),
        )

    @button(description=_("Switch on"), permissions=[MAY_CHANGE_NODE], icon="power")
    def switch_on(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._switch(
            request,
            object_id,
            active=True,
            title=gettext("Switch on"),
            description=gettext("The node may report and ask again."),
        )

    def _switch(
        self, request: HttpRequest, object_id: str, *, active: bool, title: str, description: str
    ) -> HttpResponse:
        node = subject_of(self, request, object_id, Node)

        def perform(form: ConfirmForm) -> str:
            nodes.switch(node_id=node.pk, active=active)
            if active:
                return gettext("The node is switched on.")
            return gettext("The node is switched off.")

        return ask(
            self,
            request,
            title=title,
            form_class=ConfirmForm,
            perform=perform,
            subject=node,
            description=description,
            danger=not active,
        )

    @button(description=_("New key"), permissions=[MAY_CHANGE_NODE], icon="key")
    def new_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        node = subject_of(self, request, object_id, Node)

        def perform(form: ConfirmForm) -> HttpResponse:
            token = nodes.add_key(node=node, now=clock.now())
            return show_secret(
                self, request, title=gettext("Node key"), name=node.name, secret=token
            )

        return ask(
            self,
            request,
            title=gettext("New key"),
            form_class=ConfirmForm,
            perform=perform,
            subject=node,
            description=gettext(
                "The node may hold two keys while one is being replaced: "
                "give it the new one, then revoke the old one."
            ),
        )

    @button(description=_("New callback secret"), permissions=[MAY_CHANGE_NODE], icon="vpn_key")
    def new_secret(self, request: HttpRequest, object_id: str) -> HttpResponse:
        node = subject_of(self, request, object_id, Node)

        def perform(form: ConfirmForm) -> HttpResponse:
            secret = callbacks.renew_secret(node_id=node.pk)
            return show_secret(
                self, request, title=gettext("Callback secret"), name=node.name, secret=secret
            )

        return ask(
            self,
            request,
            title=gettext("New callback secret"),
            form_class=ConfirmForm,
            perform=perform,
            subject=node,
            description=gettext(
                "The node checks the signatures of callbacks with it; the former one is void."
            ),
        )


@admin.register(NodeKey)
class NodeKeyAdmin(ReadOnlyAdmin):
    list_display = (
        "node",
        "api_key__public_id",
        "api_key__last_used_at",
        "api_key__revoked_at",
    )
    list_select_related = ("node", "api_key")
    search_texts = ("node__name", "api_key__public_id")
    actions_detail = ("revoke",)
    fitting = {"revoke": lambda row: row.api_key.revoked_at is None}

    @button(
        description=_("Revoke"),
        permissions=[MAY_CHANGE_NODE],
        icon="key_off",
        danger=True,
    )
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = subject_of(self, request, object_id, NodeKey)
        return ask_to_revoke(self, request, subject=row, key_id=row.api_key_id)

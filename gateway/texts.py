"""The texts of notifications, as an admin reads and changes them through GraphQL."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry
from strawberry.scalars import JSON

from gateway.context import Info, only
from gateway.enums import Role
from services.notifications import templates
from services.notifications.samples import SAMPLES
from services.notifications.wording import Entry, Wish


@strawberry.type(description="The title and the body of a notification, in Liquid.")
class TextTemplate:
    name: str = strawberry.field(description="What it is for: order.shipped, welcome and so on.")
    locale: str = strawberry.field(description="The BCP 47 tag of its readers.")
    title: str = strawberry.field(description="The title.")
    body: str = strawberry.field(description="The body.")
    overridden: bool = strawberry.field(description="False: it is the one that is shipped.")
    version: int = strawberry.field(
        description="Rises with every change; 0: it was never overridden."
    )
    changed_at: datetime | None = strawberry.field(description="When that was done.")
    sample: JSON = strawberry.field(
        description="What it is previewed with: all the names that it may use. Below `details` "
        "the names are the shop's own."
    )

    @classmethod
    def of(cls, entry: Entry) -> TextTemplate:
        return cls(
            name=entry.name,
            locale=entry.locale,
            title=entry.text.title,
            body=entry.text.body,
            overridden=entry.overridden,
            version=entry.version,
            changed_at=entry.changed_at,
            sample=JSON(SAMPLES[entry.name]),
        )


@strawberry.type(description="What a text template becomes.")
class TextPreview:
    title: str = strawberry.field(description="The title.")
    body: str = strawberry.field(description="The body.")


@strawberry.input(description="What a text template shall be.")
class TextTemplateInput:
    name: str = strawberry.field(description="One of those that textTemplates lists.")
    locale: str = strawberry.field(
        description="A language, perhaps with script and region: en, de-AT, zh-Hant-TW."
    )
    title: str = strawberry.field(description="The title, in Liquid.")
    body: str = strawberry.field(description="The body, in Liquid.")

    def wish(self) -> Wish:
        return Wish(self.name, self.locale, templates.Text(self.title, self.body))


@strawberry.input(description="A text template to be said from now on.")
class SaveTextTemplateInput(TextTemplateInput):
    version: int | None = strawberry.field(
        default=None, description="The version that was read; another one is a CONFLICT."
    )


@strawberry.type
class TextQuery:
    @strawberry.field(
        description="All text templates, by name and locale. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def text_templates(self, info: Info) -> list[TextTemplate]:
        return [TextTemplate.of(entry) for entry in await info.context.services.texts.entries()]

    @strawberry.field(
        description="What a text template becomes with its sample data; what saveTextTemplate "
        "refuses is refused. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def preview_text_template(
        self,
        info: Info,
        input: Annotated[TextTemplateInput, strawberry.argument(description="The template.")],
    ) -> TextPreview:
        text = info.context.services.texts.preview(input.wish())
        return TextPreview(title=text.title, body=text.body)


@strawberry.type
class TextMutation:
    @strawberry.mutation(
        description="Say this instead of what is shipped: to all readers of the locale, and to "
        "those who fall back to it. Counts everywhere within TEXT_CACHE_SECONDS. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def save_text_template(
        self,
        info: Info,
        input: Annotated[SaveTextTemplateInput, strawberry.argument(description="The template.")],
    ) -> TextTemplate:
        texts = info.context.services.texts
        return TextTemplate.of(await texts.save(input.wish(), input.version))

    @strawberry.mutation(
        description="Say what is shipped again. True: there was an override. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def reset_text_template(
        self,
        info: Info,
        name: Annotated[str, strawberry.argument(description="The template's name.")],
        locale: Annotated[str, strawberry.argument(description="Its locale.")],
    ) -> bool:
        return await info.context.services.texts.reset(name, locale)

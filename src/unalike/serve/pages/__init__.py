"""The pages of the workbench: one module a page; what they change goes through the API."""

from gateway.bridge import handlebars

handlebars.defer()

"""The commonest words of languages in Latin letters, by falling frequency; not a dictionary.

From them `language` learns how each language spells. Written by hand; function words first.
"""

from __future__ import annotations

COMMON_WORDS: dict[str, str] = {
    "en": (
        "the of and to in a is that it was for on are as with his they at be this have from "
        "or one had by but not what all were we when your can said there use an each which "
        "she do how their if will up other about out many then them these so some her would "
        "make like him into time has look two more write go see number no way could people my "
        "than first been call who its now find long down day did get come made may part over "
        "new after only also because through where much should before between under while "
        "never such know just most very even our any right though thing world house again "
        "against every found still both system those"
    ),
    "de": (
        "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als "
        "auch es an werden aus er hat dass sie nach wird bei einer um am sind noch wie einem "
        "über einen so zum war haben nur oder aber vor zur bis mehr durch man sein wurde sei "
        "ich wenn kann hatte schon gegen vom können unter wir ihr ihre seine mein kein wo was "
        "immer sehr diese dieser dieses jahr jahre zeit zwei heute ganz ohne viel gibt weil "
        "menschen leben muss müssen zwischen gut während wieder neue neuen deutsche ersten "
        "großen haus welt straße schule"
    ),
    "fr": (
        "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se "
        "ce il sont avec son cette aux ont mais comme ou si leur y été être tout nous sa deux "
        "ans même aussi fait elle ses entre sans peut encore dont après lui bien très je vous "
        "c'est qu'il d'une l'on où était avait avoir faire temps autres moins toujours pays "
        "quand autre années monde jour alors contre depuis ainsi cela trois vie non ces notre "
        "votre leurs plusieurs français française première pendant rien chez jamais toute "
        "toutes beaucoup aujourd'hui"
    ),
    "es": (
        "de la que el en y a los se del las un por con no una su para es al lo como más o "
        "pero sus le ha me si sin sobre este ya entre cuando todo esta ser son dos también "
        "fue había era muy años hasta desde está mi porque qué sólo han yo hay vez puede "
        "todos así nos ni parte tiene él uno donde bien tiempo mismo ese ahora cada vida otro "
        "después te otros aunque esa eso hace otra gobierno tan durante siempre día tanto "
        "ella tres sí gran país según menos mundo año antes estado contra sino forma nada "
        "nuestra nuestro mujer agua niños ciudad"
    ),
    "it": (
        "di e il la che in a per un del è non le si una della con i da al come dei sono più "
        "gli ha anche nel lo ma alla se nella dal delle o su suo ci questo sua dalla tra era "
        "ai stato due essere cui fra degli hanno dopo solo questa anni prima quando tutti "
        "molto così tutto sempre già perché fatto ogni ancora dove loro senza poi proprio "
        "oggi può suoi nei sulla parte altri fare tempo casa vita mio noi lui lei mondo "
        "giorno contro durante città dell'italia nell'anno c'è un'altra quello quella quali "
        "italiano stata perciò allora molti"
    ),
    "pt": (
        "de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi "
        "ao ele das tem à seu sua ou ser quando muito há nos já está eu também só pelo pela "
        "até isso ela entre era depois sem mesmo aos ter seus quem nas me esse eles estão "
        "você tinha foram essa num nem suas meu às minha têm numa pelos elas havia seja qual "
        "será nós tenho lhe deles essas esses pelas este dele anos vida tempo mundo dia ano "
        "brasil governo país são não então coração informação população ainda onde todos "
        "cidade água menino crianças fazer pode"
    ),
    "nl": (
        "de het een van en in is dat op te zijn met voor niet die aan er om ook als dan maar "
        "bij door naar over ze uit nog wel kan tot of heeft worden hij wordt werd meer geen "
        "deze dit hun was we ik je zo al had moet na jaar haar zich alle onder tegen twee "
        "andere veel mijn waar hebben kunnen jaren mensen zou wat nu zal goed hoe eerste "
        "omdat zij tijd weer doen gaan altijd tussen leven zonder nieuwe grote stad huis "
        "water kinderen school deur zeer vrouw wereld iemand niets iets daar hier toen sinds "
        "volgens waren uur dag groot"
    ),
    "sv": (
        "och i att en det som på är av för med den till inte har de om ett han men var sig "
        "från vi så kan man när år säger hon under också efter eller nu sin där vid mot ska "
        "skulle kommer ut får finns vara hade alla andra mycket än här då sedan över bara in "
        "blir upp även vad få två vill ha många hur mer går sverige svenska detta utan några "
        "varit oss mig dem hans något mellan första dag tid stora barn hus världen människor "
        "skolan måste alltid själv varför"
    ),
    "pl": (
        "w i na z się do nie że to jest o jak za po od a ale co dla tym przez są tak jego czy "
        "był już było być może tylko jej ich przy tego która który które pod roku ma bardzo "
        "przed jednak te lat tej gdy także mnie więc oraz ten tylko sobie nawet będzie kiedy "
        "jeszcze mi bez nas było ją ze pan czas człowiek życie wszystko nic wszystkich polska "
        "polski polskiej świat dzieci dom szkoła wody dzień dlaczego można kilka innych "
        "między również ludzi ci we zanim przed sposób choć gdyż"
    ),
    "tr": (
        "bir ve bu da de için ile olarak çok daha gibi en sonra olan kadar ne ise var her o "
        "ben mi ama olduğu değil diye yok ya ki iki içinde oldu onun göre ilk kendi zaman "
        "bile yeni şey sen nasıl hiç artık ancak biz tüm büyük türk türkiye olduğunu olması "
        "gün yıl insan hem önce şimdi neden bana beni ona bize bunu böyle öyle başka bütün "
        "çocuk ev dünya yer iyi kız arasında karşı üzerinde edilen eden olur olsun etti dedi "
        "söyledi geldi vardır değildir"
    ),
    "vi": (
        "và của là có trong cho được một các không với người những này đã khi để từ đến ra "
        "năm như vào cũng về tôi trên nhiều đó phải lại sẽ còn ông theo anh làm nước sau ở "
        "thì bị nhà hơn nhưng thể việt nam mà đi chỉ hai rất ngày cùng nhất mới bà nếu công "
        "biết đang nói do tại học con chúng em mình gì rồi đây trước việc thành phố sống thời "
        "gian nào hay vì"
    ),
    "id": (
        "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga saya ke karena ada "
        "mereka sudah kami oleh sebagai atau kita telah bisa lebih adalah seperti dia orang "
        "tahun dapat harus menjadi satu indonesia hanya saat anda banyak kata anak masih para "
        "antara tersebut bahwa secara jika dua namun hari sangat rumah belum sejak tetapi "
        "lain lagi sekolah setelah negara dunia kepada sendiri baru air kota ketika semua "
        "besar pemerintah masyarakat serta"
    ),
}
